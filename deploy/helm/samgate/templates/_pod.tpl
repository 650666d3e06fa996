{{/* What pods have in common. */}}

{{/* One user for all containers: the gateway's region in /dev/shm is readable by nobody else. */}}
{{- define "samgate.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/*
Service links would set SAMGATE_PORT and others, settings of the gateway, to tcp://… for the Service "samgate".
*/}}
{{- define "samgate.podBasics" -}}
serviceAccountName: {{ include "samgate.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "samgate.podSecurity" . | nindent 2 }}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Classes are the cluster's: releases in several namespaces may have one name. */}}
{{- define "samgate.priorityClassName" -}}
{{- if .Values.priorityClass.create -}}
{{- default (printf "%s-%s" .Release.Namespace (include "samgate.fullname" .)) .Values.priorityClass.name -}}
{{- else -}}
{{- .Values.priorityClass.name -}}
{{- end -}}
{{- end -}}

{{/* Takes (dict "root" $ "component" "gateway" "triton" true "store" true): whether pods use GPUs, and the store's claim. */}}
{{- define "samgate.scheduling" -}}
{{- $values := .root.Values -}}
{{- $nodes := deepCopy $values.nodeSelector -}}
{{- $tolerations := $values.tolerations -}}
{{- if .triton -}}
{{- $nodes = mustMergeOverwrite $nodes (deepCopy $values.triton.nodeSelector) -}}
{{- $tolerations = concat $tolerations $values.triton.tolerations -}}
{{- with $values.triton.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end }}
{{- $compiles := and .triton (eq .component "models") -}}
{{- with ternary (include "samgate.jobPriorityClass" .root) (include "samgate.priorityClassName" .root) $compiles }}
priorityClassName: {{ . }}
{{- end }}
{{- with $nodes }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $affinity := deepCopy $values.affinity -}}
{{- if .store -}}
{{- $affinity = mustMergeOverwrite (include "samgate.storeAffinity" .root | fromYaml) $affinity -}}
{{- end -}}
{{- with $affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if and $values.topologySpread (ne .component "models") }}
topologySpreadConstraints:
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "samgate.selector" (list $.root $.component) | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}
