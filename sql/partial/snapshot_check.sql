{{- /* After a wait, under a snapshot older than it: what was committed meanwhile cannot be seen. */ -}}
if current_setting('transaction_isolation') <> 'read committed' then
            raise exception using
                errcode = 'serialization_failure',
                message = 'could not serialize access: the session was locked';
        end if;