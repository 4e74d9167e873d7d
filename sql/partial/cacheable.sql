{{- /* Whether what this call sees is what others see: neither a standby nor a snapshot of long ago, and
       nothing that this transaction wrote. */ -}}
pg_current_xact_id_if_assigned() is null
               and current_setting('transaction_isolation') = 'read committed'
               and not pg_is_in_recovery()