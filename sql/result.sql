-- <table>_result is what get and set return. A type is a tenth faster to return than as many OUT
-- arguments, of which PostgreSQL makes a description anew with each call. Like a signature it is frozen.
-- Each attribute costs: what can be had otherwise is none.
do {{ .body }}
declare
    v_name  pg_catalog.text := {{ .lit }}{{ .schema }}."{{ .prefix }}_result"{{ .lit }};
    v_there pg_catalog.text;
begin
    if pg_catalog.to_regtype(v_name) is not null then
        select pg_catalog.format('%s %s', c.relkind, (
                   select pg_catalog.string_agg(pg_catalog.format('%s %s', a.attname, t.typname), ', ' order by a.attnum)
                     from pg_catalog.pg_attribute as a
                     join pg_catalog.pg_type as t on t.oid operator(pg_catalog.=) a.atttypid
                    where a.attrelid operator(pg_catalog.=) c.oid
                      and a.attnum operator(pg_catalog.>) 0::pg_catalog.int2
                      and not a.attisdropped))
          into v_there
          from pg_catalog.pg_class as c
         where c.oid operator(pg_catalog.=) pg_catalog.to_regclass(v_name);
        if v_there is null and pg_catalog.to_regclass(v_name) is not null then
            raise exception using
                errcode = 'serialization_failure',
                message = pg_catalog.format('%s was created after this snapshot', v_name);
        elsif v_there is null or v_there operator(pg_catalog.<>) 'c status text, subject text, data bytea, codec int2, '
                  'created_at timestamptz, expires_at timestamptz, absolute_expires_at timestamptz, idle_timeout float8, '
                  'version int8, columns text, renewed_to text, server timestamptz, ended text' then
            raise exception using
                errcode = 'duplicate_object',
                message = pg_catalog.format('%s is something else than what the functions return', v_name);
        end if;
    else
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
            server              pg_catalog.timestamptz,
            ended               pg_catalog.text
        );
        revoke all on type {{ .schema }}."{{ .prefix }}_result" from public;
    end if;
end
{{ .body }};
