{{- define "leveret.name" -}}
{{- if contains "leveret" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-leveret" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{- define "leveret.labels" -}}
app.kubernetes.io/name: leveret-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "leveret.selector" -}}
app.kubernetes.io/name: leveret-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* What the operator may do in a namespace that it looks after. */ -}}
{{- define "leveret.rules" -}}
- apiGroups: [leveret.dev]
  resources: [brokers, exchanges, queues, bindings]
  verbs: [get, list, watch, patch]
- apiGroups: [leveret.dev]
  resources: [brokers/status, exchanges/status, queues/status, bindings/status]
  verbs: [patch]
- apiGroups: [leveret.dev]
  resources: [brokers/finalizers, exchanges/finalizers, queues/finalizers, bindings/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, patch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [configmaps, services, serviceaccounts]
  verbs: [get, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
