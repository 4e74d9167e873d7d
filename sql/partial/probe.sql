{{- /* Whether nobody holds the row of p_id, into v_held. It is locked in a subtransaction that is rolled back:
       what a transaction has locked itself and then updates has the lock's mark on the new row too, and so
       each later write of the session would come here. Who takes the row after this is waited for, as who
       takes one that had no mark: without a deadlock, where the row is the only one that is written. */ -}}
begin
                perform from {{ .table }} as t where t.id = p_id for no key update skip locked;
                v_held := found;
                raise exception using errcode = 'PGS00';
            exception when sqlstate 'PGS00' then
                null;
            end;
