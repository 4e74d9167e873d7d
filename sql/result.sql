-- <table>_result is what get and set return. A type is a tenth faster to return than as many OUT
-- arguments, of which PostgreSQL makes a description anew with each call. Like a signature it is frozen.
-- Each attribute costs: what can be had otherwise is none.
do {{ .body }}
begin
    if pg_catalog.to_regtype({{ .lit }}{{ .schema }}."{{ .prefix }}_result"{{ .lit }}) is null then
        create type {{ .schema }}."{{ .prefix }}_result" as (
            status              pg_catalog.text,
            subject             pg_catalog.text,
            data                pg_catalog.bytea,
            codec               pg_catalog.int2,
            created_at          pg_catalog.timestamptz,
            expires_at          pg_catalog.timestamptz,
            absolute_expires_at pg_catalog.timestamptz,
            idle_timeout        pg_catalog.float8,
            version             pg_catalog.int8,
            columns             pg_catalog.text,
            renewed_to          pg_catalog.text,
            server              pg_catalog.timestamptz
        );
        revoke all on type {{ .schema }}."{{ .prefix }}_result" from public;
    end if;
end
{{ .body }};
