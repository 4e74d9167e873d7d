{{- /* What is left of the time until v_deadline, in milliseconds; 0 is no limit. */ -}}
perform set_config('lock_timeout', (case
            when v_deadline is null then 0
            else greatest(ceil(date_part('epoch', v_deadline - clock_timestamp()) * 1000), 1) end)::int8::text, true);