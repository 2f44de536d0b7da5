{{- /* Labels of every object; call with a dict of root and component. */ -}}
{{- define "glowplug.labels" -}}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "glowplug.selector" . }}
{{- end }}

{{- define "glowplug.selector" -}}
app.kubernetes.io/name: glowplug
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- /* An image reference; call with a dict of root and image. */ -}}
{{- define "glowplug.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- /* What the `restricted` Pod security standard asks of a Pod and of a container. */ -}}
{{- define "glowplug.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "glowplug.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* Which Pod this is, as both programs ask. */ -}}
{{- define "glowplug.podEnv" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
{{- end }}

{{- /* Where a workload's Pods may run; call with a dict of root, component and values. */ -}}
{{- define "glowplug.placement" -}}
# Soft: one node is enough, and a full zone keeps nobody from starting.
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "glowplug.selector" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* A component's Pods as a peer, seen from another namespace; call as `glowplug.selector`. */ -}}
{{- define "glowplug.peer" -}}
namespaceSelector:
  matchLabels: {kubernetes.io/metadata.name: {{ .root.Release.Namespace }}}
podSelector:
  matchLabels: {{- include "glowplug.selector" . | nindent 4 }}
{{- end }}

{{- /* The Secret with the key that the nodes' caches share with the operator. */ -}}
{{- define "glowplug.cacheKey" -}}
{{ .Values.cache.keySecretName | default "glowplug-cache-key" }}
{{- end }}
