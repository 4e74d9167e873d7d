{{- /* Each turn means that another one was faster; so many mean that no write has any effect. */ -}}
v_attempt := v_attempt + 1;
        if v_attempt > 100 then
            raise exception using
                errcode = 'triggered_action_exception',
                message = format('session %s cannot be written: a trigger or a policy prevents it', p_id);
        end if;