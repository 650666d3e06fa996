{{/* How models come into pods: init containers that fill the volume "home", and "repository" for Triton. */}}

{{/* The Job's folder in the store: another one for whatever would change what is in it. */}}
{{- define "samgate.modelKey" -}}
{{- if .Values.modelStore.folder -}}
{{- .Values.modelStore.folder -}}
{{- else -}}
{{- $made := list (include "samgate.image" (list . "compile")) .Values.variants .Values.detector -}}
{{- with .Values.textModel -}}
{{- $made = append $made . -}}
{{- end -}}
{{- if eq (include "samgate.compilesPlans" .) "true" -}}
{{- $made = concat $made (list (include "samgate.image" (list . "tritonCompile")) .Values.triton.precision .Values.triton.computeCapability) -}}
{{- end -}}
{{- toJson $made | sha256sum | trunc 12 -}}
{{- end -}}
{{- end -}}

{{- define "samgate.compilesPlans" -}}
{{- and (ne .Values.engine.mode "embedded") (eq .Values.triton.profile "tensorrt") -}}
{{- end -}}

{{- define "samgate.hasJob" -}}
{{- if and .Values.modelStore.compile (ne .Values.modelStore.mode "image") -}}true{{- end -}}
{{- end -}}

{{- define "samgate.jobPriorityClass" -}}
{{- default (printf "%s-%s-models" .Release.Namespace (include "samgate.fullname" .)) .Values.modelStore.priorityClassName -}}
{{- end -}}

{{- define "samgate.claim" -}}
{{- default (printf "%s-models" (include "samgate.fullname" .)) .Values.modelStore.pvc.existingClaim -}}
{{- end -}}

{{/* Without their precisions. */}}
{{- define "samgate.variantNames" -}}
{{- $names := list -}}
{{- range .Values.variants -}}
{{- $names = append $names (first (splitList ":" .)) -}}
{{- end -}}
{{- $names | uniq | join "," -}}
{{- end -}}

{{/* Detector and text model. */}}
{{- define "samgate.besideNames" -}}
{{- compact (list .Values.detector .Values.textModel) | join "," -}}
{{- end -}}

{{/* Variants, and what serves beside them. */}}
{{- define "samgate.modelNames" -}}
{{- include "samgate.variantNames" . -}}
{{- with include "samgate.besideNames" . -}},{{ . }}{{- end -}}
{{- end -}}

{{- define "samgate.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "samgate.smallResources" -}}
requests: {cpu: 100m, memory: 256Mi}
limits: {cpu: "1", memory: 1Gi}
{{- end -}}

{{- define "samgate.storeEnv" -}}
- {name: STORE, value: {{ ternary "/var/lib/samgate" (printf "/store/%s" (include "samgate.modelKey" .)) (eq .Values.modelStore.mode "image") | quote }}}
{{- if eq .Values.modelStore.mode "objectStorage" }}
- {name: REMOTE, value: {{ printf "store:%s/%s" .Values.modelStore.objectStorage.path (include "samgate.modelKey" .) | quote }}}
- {name: RCLONE_CONFIG, value: /dev/null}
{{- range $name, $value := .Values.modelStore.objectStorage.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "samgate.storeEnvFrom" -}}
{{- if and (eq .Values.modelStore.mode "objectStorage") .Values.modelStore.objectStorage.existingSecret -}}
envFrom:
  - secretRef: {name: {{ .Values.modelStore.objectStorage.existingSecret }}}
{{- end -}}
{{- end -}}

{{/* Fills the volume "home" as soon as the store has what this release wants. */}}
{{- define "samgate.fetchModels" -}}
{{- $objects := eq .Values.modelStore.mode "objectStorage" -}}
- name: models
  image: {{ include "samgate.image" (list . (ternary "rclone" "gateway" $objects)) }}
  imagePullPolicy: {{ .Values.images.pullPolicy }}
  command: [sh, {{ ternary "/scripts/fetch-objects.sh" "/scripts/fetch-files.sh" $objects }}]
  env:
    - {name: DESTINATION, value: /home-of-samgate}
    - {name: WAIT_SECONDS, value: {{ ternary 0 .Values.modelStore.waitSeconds (eq .Values.modelStore.mode "image") | int64 | quote }}}
    {{- include "samgate.storeEnv" . | nindent 4 }}
  {{- with include "samgate.storeEnvFrom" . }}
  {{- . | nindent 2 }}
  {{- end }}
  securityContext:
    {{- include "samgate.containerSecurity" . | nindent 4 }}
  resources:
    {{- include "samgate.smallResources" . | nindent 4 }}
  volumeMounts:
    - {name: home, mountPath: /home-of-samgate}
    - {name: scripts, mountPath: /scripts, readOnly: true}
    - {name: tmp, mountPath: /tmp}
    {{- if eq .Values.modelStore.mode "pvc" }}
    - {name: store, mountPath: /store, readOnly: true}
    {{- end }}
{{- end -}}

{{/* Writes Triton's repository from what is in the volume "home". */}}
{{- define "samgate.buildRepository" -}}
- name: repository
  image: {{ include "samgate.image" (list . "gateway") }}
  imagePullPolicy: {{ .Values.images.pullPolicy }}
  args:
    - repository
    - build
    - --models
    - --profile
    - {{ .Values.triton.profile }}
    - --variants
    - {{ include "samgate.modelNames" . | quote }}
    - --output
    - /repository
    {{- if eq .Values.triton.profile "tensorrt" }}
    - --precision
    - {{ .Values.triton.precision }}
    - --compute-capability
    - {{ .Values.triton.computeCapability | quote }}
    {{- end }}
  env:
    - {name: SAMGATE_HOME, value: /var/lib/samgate}
  securityContext:
    {{- include "samgate.containerSecurity" . | nindent 4 }}
  resources:
    {{- include "samgate.smallResources" . | nindent 4 }}
  volumeMounts:
    - {name: home, mountPath: /var/lib/samgate}
    - {name: repository, mountPath: /repository}
    - {name: tmp, mountPath: /tmp}
{{- end -}}

{{/* Volumes of a pod that fetches models. */}}
{{- define "samgate.modelVolumes" -}}
- name: home
  emptyDir: {sizeLimit: {{ include "samgate.homeLimit" . }}}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
- name: scripts
  configMap: {name: {{ include "samgate.fullname" . }}-scripts}
{{- if eq .Values.modelStore.mode "pvc" }}
- name: store
  persistentVolumeClaim:
    claimName: {{ include "samgate.claim" . }}
    readOnly: {{ eq .Values.modelStore.pvc.accessMode "ReadOnlyMany" }}
{{- end }}
{{- end -}}

{{/* A ReadWriteOnce claim is on one node, so all that use it have to be: a label, and the affinity to it. */}}
{{- define "samgate.storeLabel" -}}
{{- if and (eq .Values.modelStore.mode "pvc") (eq .Values.modelStore.pvc.accessMode "ReadWriteOnce") -}}
samgate-model-store: {{ include "samgate.claim" . }}
{{- end -}}
{{- end -}}

{{- define "samgate.storeAffinity" -}}
{{- with include "samgate.storeLabel" . -}}
podAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
          {{- . | nindent 10 }}
{{- end -}}
{{- end -}}
