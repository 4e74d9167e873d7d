{{- /* After deleting the rows of .rows, of which .deleted were: raises where they cannot go. */ -}}
if {{ .deleted }} < cardinality({{ .rows }}) then
                raise exception using
                    errcode = 'triggered_action_exception',
                    message = 'a trigger, a rule or a policy prevents the deletion of rows';
            end if;
            if cardinality({{ .rows }}) > 0 then
                perform {{ .schema }}."{{ .prefix }}_settle"();
            end if;