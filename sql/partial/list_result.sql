returns table (
    id                  text,
    subject             text,
    data                bytea,
    codec               int2,
    created_at          timestamptz,
    expires_at          timestamptz,
    absolute_expires_at timestamptz,
    idle_timeout        float8,
    version             int8,
    columns             text
)
