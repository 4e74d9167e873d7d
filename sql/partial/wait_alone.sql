{{- /* Waits for the row of v_id, and lets go of it again: of several rows none is waited for while others are held.
       In ascending order that would not be enough: a renewal that is waited for gives its session another id, and
       so who waits for a row may wait for one that is out of order. $.lock is how to lock it. */ -}}
begin
                    perform from {{ .table }} as t where t.id = v_id for {{ .lock }};
                    raise exception using errcode = 'PGS00';
                exception
                    when sqlstate 'PGS00' then
                        null;
                end;