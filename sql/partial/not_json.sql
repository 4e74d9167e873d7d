{{- /* The conditions that come of text that jsonb cannot hold. */ -}}
data_exception or program_limit_exceeded or statement_too_complex or character_not_in_repertoire
        or untranslatable_character