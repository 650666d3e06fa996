{{/* Triton, as a sidecar or alone. */}}

{{- define "samgate.tritonEndpoint" -}}
{{- if eq .Values.engine.mode "triton-sidecar" -}}
127.0.0.1:8001
{{- else -}}
{{- printf "dns:///%s-triton:8001" (include "samgate.fullname" .) -}}
{{- end -}}
{{- end -}}

{{/* Explicit control lets the gateway load a model anew whose process died. Calls under way have the drain's time. */}}
{{- define "samgate.tritonContainer" -}}
name: triton
image: {{ include "samgate.image" (list . "triton") }}
imagePullPolicy: {{ .Values.images.pullPolicy }}
command: [tritonserver]
args:
  - --model-repository=/repository/{{ .Values.triton.profile }}
  - --model-control-mode=explicit
  - --load-model=*
  - --disable-auto-complete-config
  - --allow-http=false
  - --grpc-port=8001
  - --metrics-port=8002
  - --exit-timeout-secs={{ .Values.timing.drainSeconds | int64 }}
  {{- with .Values.triton.extraArgs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  - {name: triton-grpc, containerPort: 8001}
  - {name: triton-metrics, containerPort: 8002}
startupProbe:
  grpc: {port: 8001}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: {{ div (add .Values.timing.startupSeconds 4) 5 }}
readinessProbe:
  grpc: {port: 8001}
  periodSeconds: 5
  timeoutSeconds: 3
livenessProbe:
  grpc: {port: 8001}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
securityContext:
  {{- include "samgate.containerSecurity" . | nindent 2 }}
resources:
  {{- $gpus := dict -}}
  {{- if gt (int .Values.triton.gpus) 0 -}}
  {{- $gpus = dict "limits" (dict .Values.triton.gpuResource (int .Values.triton.gpus)) -}}
  {{- end -}}
  {{- mustMergeOverwrite (deepCopy .Values.triton.resources) $gpus | toYaml | nindent 2 }}
volumeMounts:
  - {name: repository, mountPath: /repository, readOnly: true}
  - {name: tmp, mountPath: /tmp}
  - {name: shm, mountPath: /dev/shm}
{{- end -}}

{{- define "samgate.tritonVolumes" -}}
- name: repository
  emptyDir: {sizeLimit: {{ include "samgate.homeLimit" . }}}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ include "samgate.shmLimit" . }}}
{{- end -}}
