{{- define "observer.selector" -}}
app.kubernetes.io/name: observer
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "observer.labels" -}}
{{ include "observer.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/*
The operator gives each series the labels of observer's own pod. observer_netns_info and observer_process_open_files have
labels of the same names, for pods that they are about: the operator's go. The alerts name a node by its instance.
*/}}
{{- define "observer.relabelings" -}}
- action: labeldrop
  regex: pod|container|namespace|service|endpoint
- sourceLabels: [__meta_kubernetes_pod_node_name]
  targetLabel: instance
{{- end }}
