{{/* How the controller is told what to do; cluster/controller/settings.py reads it. */}}
{{- define "longtake.controllerVariables" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{ include "longtake.secretVariable" (dict "variable" "LONGTAKE_API_KEY" "name" .Values.adminKey.secret.name "key" .Values.adminKey.secret.key) }}
- name: LONGTAKE_CONTROLLER_FARM_URL
  value: {{ include "longtake.apiUrl" . }}
- name: LONGTAKE_CONTROLLER_LEASE_NAME
  value: {{ include "longtake.fullname" . }}-controller
- name: LONGTAKE_CONTROLLER_POD_SELECTOR
  value: ray.io/cluster,app.kubernetes.io/instance={{ .Release.Name }}
- name: LONGTAKE_CONTROLLER_WATCH_NODES
  value: {{ .Values.controller.watchNodes | quote }}
- name: LONGTAKE_CONTROLLER_MAX_DRAINED_SHARE
  value: {{ .Values.controller.maxDrainedShare | quote }}
{{- end -}}
