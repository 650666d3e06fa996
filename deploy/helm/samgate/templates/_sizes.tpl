{{/* Quantities, and the sizes that follow from others. docs/deploy.md, "Sizes", has the formulas. */}}

{{/* Takes "512Mi" or a number: bytes. */}}
{{- define "samgate.bytes" -}}
{{- if kindIs "string" . -}}
{{- $unit := regexFind "[A-Za-z]*$" . -}}
{{- $factors := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 -}}
{{- if not (hasKey $factors $unit) -}}
{{- fail (printf "%q is no quantity of bytes: a whole number, and k, M, G, Ki, Mi or Gi" .) -}}
{{- end -}}
{{- mul (trimSuffix $unit . | int64) (get $factors $unit) -}}
{{- else -}}
{{- int64 . -}}
{{- end -}}
{{- end -}}

{{/* Takes bytes as text: whole mebibytes, rounded up. */}}
{{- define "samgate.mebibytes" -}}
{{- printf "%dMi" (div (add (int64 .) 1048575) 1048576) -}}
{{- end -}}

{{/* Takes "1500m", "2", 2 or 1.5: thousandths of a core. */}}
{{- define "samgate.millicores" -}}
{{- if hasSuffix "m" (toString .) -}}
{{- trimSuffix "m" . | int64 -}}
{{- else -}}
{{- round (mulf (float64 .) 1000) 0 | int64 -}}
{{- end -}}
{{- end -}}

{{- define "samgate.threads" -}}
{{- if .Values.engine.threads -}}
{{- int64 .Values.engine.threads -}}
{{- else -}}
{{- $limits := default dict .Values.resources.limits -}}
{{- $requests := default dict .Values.resources.requests -}}
{{- max 1 (div (include "samgate.millicores" (default (default "1" $requests.cpu) $limits.cpu)) 1000) -}}
{{- end -}}
{{- end -}}

{{/* Bytes of the region that Triton and the gateway share. */}}
{{- define "samgate.sharedMemory" -}}
{{- if ne .Values.engine.mode "triton-sidecar" -}}
0
{{- else if not (kindIs "invalid" .Values.triton.sharedMemoryBytes) -}}
{{- include "samgate.bytes" .Values.triton.sharedMemoryBytes -}}
{{- else -}}
{{- add (include "samgate.bytes" .Values.cache.maxBytes) (mul 128 1048576) -}}
{{- end -}}
{{- end -}}

{{/* Of /dev/shm: the region, and 64 MiB for whatever else is there. */}}
{{- define "samgate.shmLimit" -}}
{{- include "samgate.mebibytes" (add (include "samgate.sharedMemory" .) (mul 64 1048576)) -}}
{{- end -}}

{{/* What the gateway holds for as long as it runs; pages of /dev/shm count, as it is the one that takes them. */}}
{{- define "samgate.restingBytes" -}}
{{- $base := include "samgate.bytes" .Values.sizing.baseMemory -}}
{{- if eq .Values.engine.mode "triton-sidecar" -}}
{{- add $base (include "samgate.bytes" (include "samgate.shmLimit" .)) -}}
{{- else -}}
{{- $embedded := eq .Values.engine.mode "embedded" -}}
{{- $points := ternary (len .Values.variants) 0 $embedded -}}
{{- $text := ternary (include "samgate.bytes" .Values.sizing.textModelMemory) "0" (and $embedded (ne .Values.textModel "")) -}}
{{- add $base (mul $points (include "samgate.bytes" .Values.sizing.pointMemory)) $text (include "samgate.bytes" .Values.cache.maxBytes) -}}
{{- end -}}
{{- end -}}

{{/* On top of that while it works: twice 12 bytes a pixel is what decoded images may take at once. */}}
{{- define "samgate.workingBytes" -}}
{{- add (mul 24 (int64 .Values.limits.maxPixels)) (mul 2 (include "samgate.bytes" .Values.sizing.messageMemory)) -}}
{{- end -}}

{{- define "samgate.resources" -}}
{{- $resting := include "samgate.restingBytes" . -}}
{{- $most := add $resting (include "samgate.workingBytes" .) -}}
{{- $reckoned := dict
  "requests" (dict "memory" (include "samgate.mebibytes" $resting))
  "limits" (dict "memory" (include "samgate.mebibytes" $most)) -}}
{{- mustMergeOverwrite $reckoned (deepCopy .Values.resources) | toYaml -}}
{{- end -}}

{{/* Models and what is compiled of them; with Triton its repository, too. */}}
{{- define "samgate.homeLimit" -}}
{{- printf "%dMi" (add 512 (mul 512 (len .Values.variants)) (ternary 2048 0 (ne .Values.textModel ""))) -}}
{{- end -}}

{{- define "samgate.margin" -}}
{{- ternary 20 15 (eq .Values.engine.mode "triton-sidecar") -}}
{{- end -}}

{{- define "samgate.gracePeriod" -}}
{{- $needed := add .Values.timing.preStopSeconds .Values.timing.drainSeconds -}}
{{- if kindIs "invalid" .Values.timing.terminationGracePeriodSeconds -}}
{{- add $needed (include "samgate.margin" .) -}}
{{- else -}}
{{- int64 .Values.timing.terminationGracePeriodSeconds -}}
{{- end -}}
{{- end -}}

{{/* The gateway waits for Triton pods, which may have to wait for their models. */}}
{{- define "samgate.startupSeconds" -}}
{{- $waits := and (eq .Values.engine.mode "triton") (ne .Values.modelStore.mode "image") -}}
{{- add .Values.timing.startupSeconds (ternary .Values.modelStore.waitSeconds 0 $waits) -}}
{{- end -}}

{{- define "samgate.progressSeconds" -}}
{{- $waits := ternary 0 .Values.modelStore.waitSeconds (eq .Values.modelStore.mode "image") -}}
{{- add .Values.timing.startupSeconds $waits 60 -}}
{{- end -}}
