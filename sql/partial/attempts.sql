{{- /* After the loop of attempts. Each means that another one was faster; so many, that no write has any
       effect. */ -}}
raise exception using
            errcode = 'triggered_action_exception',
            message = format('session %s cannot be written: a trigger or a policy prevents it', p_id);