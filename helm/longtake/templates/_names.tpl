{{/* Names, labels and images. Selectors and Ray's pods get name, instance and component alone: anything that changes with a
     release, such as the chart's version, would replace the whole Ray cluster. */}}

{{- define "longtake.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 40 characters: KubeRay allows a RayService 47, and the pools' names are put behind it. */}}
{{- define "longtake.fullname" -}}
{{- $name := include "longtake.name" . -}}
{{- $own := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $own .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Of a dict with `root` and `component`. */}}
{{- define "longtake.selectorLabels" -}}
app.kubernetes.io/name: {{ include "longtake.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "longtake.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "longtake.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: longtake
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Of a dict with `root` and `image`. */}}
{{- define "longtake.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .root.Chart.AppVersion .image.tag }}
{{- end -}}
{{- end -}}

{{/* Annotations of what must outlive the release: when a Ray cluster is deleted, KubeRay removes its state from Redis with a Job made of
     the head's pod, whose objects Helm would have deleted by then. */}}
{{- define "longtake.keptForCleanup" -}}
{{- if eq .Values.gcs.backend "redis" -}}
helm.sh/resource-policy: keep
{{- end -}}
{{- end -}}

{{/* The Service that KubeRay makes for the API. */}}
{{- define "longtake.apiService" -}}
{{ include "longtake.fullname" . }}-serve-svc
{{- end -}}

{{- define "longtake.apiUrl" -}}
http://{{ include "longtake.apiService" . }}:8000
{{- end -}}

{{- define "longtake.weightsClaim" -}}
{{- default (printf "%s-weights" (include "longtake.fullname" .)) .Values.weights.volume.existingClaim -}}
{{- end -}}
