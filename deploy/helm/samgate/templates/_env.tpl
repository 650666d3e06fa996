{{/* The gateway's settings, as its environment. */}}

{{- define "samgate.env" -}}
{{- $embedded := eq .Values.engine.mode "embedded" -}}
- {name: SAMGATE_HOST, value: "0.0.0.0"}
- {name: SAMGATE_PORT, value: "50051"}
- {name: SAMGATE_HTTP_HOST, value: "0.0.0.0"}
- {name: SAMGATE_HTTP_PORT, value: "8080"}
- {name: SAMGATE_ADMIN_HOST, value: "0.0.0.0"}
- {name: SAMGATE_ADMIN_PORT, value: "50052"}
- {name: SAMGATE_ADMIN_REFLECTION, value: "off"}
- {name: SAMGATE_LOG_FORMAT, value: json}
- {name: SAMGATE_DRAIN_S, value: {{ .Values.timing.drainSeconds | int64 | quote }}}
- {name: SAMGATE_VARIANTS, value: {{ join "," .Values.variants | quote }}}
{{- with .Values.detector }}
- {name: SAMGATE_DETECTOR, value: {{ . | quote }}}
{{- end }}
{{- with .Values.textModel }}
- {name: SAMGATE_TEXT_MODEL, value: {{ . | quote }}}
{{- end }}
- {name: SAMGATE_CACHE_MAX_BYTES, value: {{ include "samgate.bytes" .Values.cache.maxBytes | quote }}}
- {name: SAMGATE_LIMITS_MAX_TOTAL_BYTES, value: {{ include "samgate.bytes" .Values.sizing.messageMemory | quote }}}
- {name: SAMGATE_LIMITS_MAX_PIXELS, value: {{ .Values.limits.maxPixels | int64 | quote }}}
- {name: SAMGATE_LIMITS_MAX_CONCURRENT_CALLS, value: {{ .Values.limits.maxConcurrentCalls | int64 | quote }}}
{{- if $embedded }}
- {name: SAMGATE_ENGINE_NAME, value: {{ .Values.engine.name }}}
- {name: SAMGATE_ENGINE_PRECISION, value: {{ .Values.engine.precision | quote }}}
- {name: SAMGATE_ENGINE_THREADS, value: {{ include "samgate.threads" . | quote }}}
{{- else }}
- {name: SAMGATE_ENGINE_NAME, value: triton}
- {name: SAMGATE_TRITON_ENDPOINTS, value: {{ include "samgate.tritonEndpoint" . | quote }}}
- {name: SAMGATE_TRITON_SHARED_MEMORY_BYTES, value: {{ include "samgate.sharedMemory" . | quote }}}
- {name: SAMGATE_TRITON_CONNECT_TIMEOUT_S, value: {{ include "samgate.startupSeconds" . | quote }}}
{{- end }}
{{- if .Values.tls.secretName }}
- {name: SAMGATE_TLS_CERTIFICATE, value: /etc/samgate/tls/tls.crt}
- {name: SAMGATE_TLS_KEY, value: /etc/samgate/tls/tls.key}
{{- end }}
{{- with .Values.tls.clientCa }}
{{- if .secretName }}
- {name: SAMGATE_TLS_CLIENT_CA, value: {{ printf "/etc/samgate/client-ca/%s" .key | quote }}}
{{- end }}
{{- end }}
{{- with .Values.auth.clients }}
{{- if .secretName }}
- {name: SAMGATE_AUTH_CLIENTS, value: {{ printf "/etc/samgate/clients/%s" .key | quote }}}
{{- end }}
{{- end }}
{{- with .Values.auth.jwt }}
{{- if .secretName }}
- {name: SAMGATE_AUTH_JWT_KEYS, value: {{ printf "/etc/samgate/jwt/%s" .key | quote }}}
- {name: SAMGATE_AUTH_JWT_ISSUER, value: {{ .issuer | quote }}}
- {name: SAMGATE_AUTH_JWT_AUDIENCE, value: {{ .audience | quote }}}
{{- end }}
{{- end }}
{{- if and .Values.auth.anonymous (not (include "samgate.authenticated" .)) (not .Values.tls.clientCa.secretName) }}
- {name: SAMGATE_AUTH_ANONYMOUS, value: "true"}
{{- end }}
{{- with .Values.metrics.token }}
{{- if .secretName }}
- {name: SAMGATE_METRICS_TOKEN, value: {{ printf "/etc/samgate/metrics/%s" .key | quote }}}
{{- else }}
- {name: SAMGATE_METRICS_OPEN, value: "true"}
{{- end }}
{{- end }}
{{- if .Values.tracing.endpoint }}
- {name: SAMGATE_TRACING_ENDPOINT, value: {{ .Values.tracing.endpoint | quote }}}
- {name: SAMGATE_TRACING_SAMPLE, value: {{ .Values.tracing.sample | quote }}}
{{- end }}
{{- end -}}

{{/* The Secrets that files among the settings are in: mount name → secret. */}}
{{- define "samgate.secrets" -}}
{{- with .Values.tls.secretName }}
tls: {{ . }}
{{- end }}
{{- with .Values.tls.clientCa.secretName }}
client-ca: {{ . }}
{{- end }}
{{- with .Values.auth.clients.secretName }}
clients: {{ . }}
{{- end }}
{{- with .Values.auth.jwt.secretName }}
jwt: {{ . }}
{{- end }}
{{- with .Values.metrics.token.secretName }}
metrics: {{ . }}
{{- end }}
{{- end -}}
