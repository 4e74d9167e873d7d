{{- /* Null or NaN would fail the table's constraints, with the row in the error's detail. */ -}}
if (p_tombstone < 3153600000) is not true then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'p_tombstone must be a number of seconds below 100 years';
    end if;