{{/* What fits together is checked here, as far as the schema can't: each message says what to set. */}}

{{- define "samgate.authenticated" -}}
{{- if or .Values.auth.clients.secretName .Values.auth.jwt.secretName -}}true{{- end -}}
{{- end -}}

{{- define "samgate.checks" -}}
{{- $values := .Values -}}
{{- $store := .Values.modelStore -}}
{{- $triton := ne .Values.engine.mode "embedded" -}}
{{- $scaled := ne .Values.autoscaling.by "none" -}}

{{- $unknown := or (include "samgate.authenticated" .) .Values.tls.clientCa.secretName | not -}}
{{- if and $unknown (not .Values.auth.anonymous) -}}
{{- fail "nobody could call: set auth.clients.secretName, auth.jwt.secretName or tls.clientCa.secretName, or auth.anonymous=true" -}}
{{- end -}}
{{- if and $unknown (not .Values.allowUnprotected) -}}
{{- if not .Values.networkPolicy.enabled -}}
{{- fail "anybody could call: without clients' authentication networkPolicy.enabled has to be true; set auth.clients.secretName, auth.jwt.secretName or tls.clientCa.secretName, or allowUnprotected=true" -}}
{{- end -}}
{{- if or .Values.ingress.enabled .Values.gatewayApi.enabled (ne .Values.service.type "ClusterIP") -}}
{{- fail "anybody outside of the cluster could call through Ingress, Gateway or Service: set auth.clients.secretName, auth.jwt.secretName or tls.clientCa.secretName, or allowUnprotected=true" -}}
{{- end -}}
{{- end -}}
{{- if not (or .Values.metrics.token.secretName .Values.networkPolicy.enabled .Values.allowUnprotected) -}}
{{- fail "anybody could read metrics: set metrics.token.secretName, networkPolicy.enabled=true or allowUnprotected=true" -}}
{{- end -}}
{{- if and .Values.tls.clientCa.secretName (not .Values.tls.secretName) -}}
{{- fail "tls.clientCa needs tls.secretName, the server's own certificate" -}}
{{- end -}}

{{- $needed := add .Values.timing.preStopSeconds .Values.timing.drainSeconds | int64 -}}
{{- if lt (include "samgate.gracePeriod" . | int64) $needed -}}
{{- fail (printf "timing.terminationGracePeriodSeconds is %s, but preStopSeconds and drainSeconds together are %d: calls under way would be killed" (include "samgate.gracePeriod" .) $needed) -}}
{{- end -}}

{{- if eq $store.mode "image" -}}
{{- if and $triton (eq .Values.triton.profile "tensorrt") -}}
{{- fail "TensorRT plans are compiled on the GPU that runs them and are in no image: set modelStore.mode to pvc or objectStorage, or triton.profile to onnxruntime" -}}
{{- end -}}
{{- else if and (not $store.compile) (not $store.folder) -}}
{{- fail "modelStore.folder has to name the folder in the store, as no Job fills it (modelStore.compile=false)" -}}
{{- else if and $store.compile $store.folder -}}
{{- fail "modelStore.folder is for stores that you fill: set modelStore.compile=false, too" -}}
{{- end -}}
{{- if and (eq $store.mode "objectStorage") (not $store.objectStorage.path) -}}
{{- fail "modelStore.objectStorage.path has to be bucket and prefix" -}}
{{- end -}}
{{- if eq $store.mode "pvc" -}}
{{- $mode := $store.pvc.accessMode -}}
{{- $readers := ternary $values.triton.replicas $values.replicas (eq $values.engine.mode "triton") | int -}}
{{- if and (eq $mode "ReadWriteOnce") (or $scaled (gt $readers 1)) -}}
{{- fail "a ReadWriteOnce claim is for one node: for several pods set modelStore.pvc.accessMode to ReadWriteMany (the storage class has to have it) or modelStore.mode to image or objectStorage" -}}
{{- end -}}
{{- if and (eq $mode "ReadOnlyMany") $store.compile -}}
{{- fail "a ReadOnlyMany claim can't be filled by the Job: set modelStore.compile=false and modelStore.folder, or another accessMode" -}}
{{- end -}}
{{- if and (eq $mode "ReadOnlyMany") (not $store.pvc.existingClaim) -}}
{{- fail "a ReadOnlyMany claim that is made here would be empty: set modelStore.pvc.existingClaim" -}}
{{- end -}}
{{- end -}}

{{- if and $triton (eq .Values.triton.profile "tensorrt") -}}
{{- if not .Values.triton.computeCapability -}}
{{- fail "triton.computeCapability has to say which GPU the TensorRT plans are for, such as \"8.9\" (quoted)" -}}
{{- end -}}
{{- if lt (int .Values.triton.gpus) 1 -}}
{{- fail "triton.profile tensorrt needs triton.gpus=1 or more" -}}
{{- end -}}
{{- if and (eq .Values.triton.precision "int8") $store.compile -}}
{{- fail "int8 is calibrated on photographs of yours: compile it by hand, then set modelStore.compile=false and modelStore.folder" -}}
{{- end -}}
{{- end -}}

{{- if and $scaled (kindIs "invalid" .Values.autoscaling.queuedWorkSeconds) (kindIs "invalid" .Values.autoscaling.requestsInFlight) -}}
{{- fail "autoscaling looks at nothing: set autoscaling.queuedWorkSeconds or autoscaling.requestsInFlight" -}}
{{- end -}}
{{- if and $scaled (eq .Values.engine.mode "triton") (or (kindIs "invalid" .Values.autoscaling.queuedWorkSeconds) (kindIs "invalid" .Values.autoscaling.requestsInFlight)) -}}
{{- fail "with engine.mode triton both autoscaling.queuedWorkSeconds (for Triton) and autoscaling.requestsInFlight (for gateways) are needed" -}}
{{- end -}}
{{- if lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas) -}}
{{- fail "autoscaling.maxReplicas is less than autoscaling.minReplicas" -}}
{{- end -}}
{{- if and (eq .Values.autoscaling.by "keda") (not .Values.autoscaling.keda.serverAddress) -}}
{{- fail "autoscaling.keda.serverAddress has to be the URL of the Prometheus that KEDA asks" -}}
{{- end -}}

{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.host has to be the name that is served" -}}
{{- end -}}
{{- if .Values.gatewayApi.enabled -}}
{{- if not .Values.gatewayApi.parentRefs -}}
{{- fail "gatewayApi.parentRefs has to name a Gateway" -}}
{{- end -}}
{{- if and .Values.tls.secretName (not (and .Values.gatewayApi.backendTls.hostname .Values.gatewayApi.backendTls.caConfigMap)) -}}
{{- fail "a Gateway in front of TLS needs gatewayApi.backendTls.hostname and gatewayApi.backendTls.caConfigMap" -}}
{{- end -}}
{{- end -}}

{{- $own := dict -}}
{{- range include "samgate.env" . | fromYamlArray -}}
{{- $_ := set $own .name true -}}
{{- end -}}
{{- range $name, $_ := .Values.settings -}}
{{- if hasKey $own (printf "SAMGATE_%s" $name) -}}
{{- fail (printf "settings.%s: the chart sets SAMGATE_%s itself, from its other values" $name $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether `helm test` has what the server asks of clients. */}}
{{- define "samgate.testable" -}}
{{- $token := or .Values.tests.tokenSecret.name (not (include "samgate.authenticated" .)) -}}
{{- $certificate := or .Values.tests.clientSecretName (not .Values.tls.clientCa.secretName) -}}
{{- if and $token $certificate -}}true{{- end -}}
{{- end -}}
