{{- /* After a vacuum of an empty table a cached plan would scan it as a whole for ever. What can be scanned in no
       other way, as by a foreign key's check or in a trigger, then looks costly enough to be compiled, each time. */ -}}
set enable_seqscan = off
set jit = off