{{- /* In a handler of all errors, of deleting rows: raises those that pass, or are no row's fault. $.or is a
       condition more. */ -}}
if left(sqlstate, 2) = any ('{40,53,55,57,58,XX}'){{ with .or }} or {{ . }}{{ end }} then
                    raise;
                end if;