{{/* The name that everything of a release begins with. */}}
{{- define "hadal.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "hadal.selector" -}}
app.kubernetes.io/name: hadal
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "hadal.labels" -}}
{{ include "hadal.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "hadal.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "hadal.peers" -}}
{{ include "hadal.fullname" . }}-peers
{{- end -}}

{{- define "hadal.clusterName" -}}
{{ .Values.cluster.name | default .Release.Name }}
{{- end -}}

{{/* Where the core nodes are, by the names that the StatefulSet gives them. */}}
{{- define "hadal.join" -}}
{{- $names := list -}}
{{- range $i := until (int .Values.replicas) -}}
{{- $names = append $names (printf "%s-%d.%s.%s.svc.%s:6222" (include "hadal.fullname" $) $i (include "hadal.peers" $) $.Release.Namespace $.Values.cluster.domain) -}}
{{- end -}}
{{- join "," $names -}}
{{- end -}}

{{/* What is wrong with the values, beyond what values.schema.json can say. */}}
{{- define "hadal.check" -}}
{{- if not (or .Values.cluster.secret .Values.cluster.existingSecret) -}}
{{- fail "set cluster.secret to at least 32 random characters, or cluster.existingSecret to the name of a Secret that holds them" -}}
{{- end -}}
{{- if not (or .Values.users .Values.existingUsersSecret .Values.config.allowOpenAuth) -}}
{{- fail "nobody could log in: set users, existingUsersSecret, or config.allowOpenAuth with config.auth" -}}
{{- end -}}
{{- end -}}

{{/* What core and edge pods have in common. */}}
{{- define "hadal.podAnnotations" -}}
checksum/config: {{ include (print $.Template.BasePath "/configmap.yaml") . | sha256sum }}
checksum/secret: {{ include (print $.Template.BasePath "/secret.yaml") . | sha256sum }}
{{- with .Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "hadal.podSpec" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
automountServiceAccountToken: false
# A Service named hadal would otherwise set HADAL_PORT and others in every pod, and a
# node refuses variables of that beginning that it does not know.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "hadal.volumes" -}}
- name: config
  projected:
    sources:
      - configMap:
          name: {{ include "hadal.fullname" . }}
      - configMap:
          name: {{ include "hadal.fullname" . }}-permissions
      {{- if or .Values.users .Values.existingUsersSecret }}
      - secret:
          name: {{ .Values.existingUsersSecret | default (include "hadal.fullname" .) }}
          items:
            - key: users.yml
              path: users.yml
      {{- end }}
{{- end -}}

{{- define "hadal.container" -}}
image: {{ include "hadal.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
ports:
  - name: clients
    containerPort: 6020
  - name: routes
    containerPort: 6222
  - name: raft
    containerPort: 6223
volumeMounts:
  - name: data
    mountPath: /var/lib/hadal
  - name: config
    mountPath: /etc/hadal
    readOnly: true
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
# A start may have to read or fetch much; a node that lives is never killed for that.
startupProbe:
  httpGet:
    path: /healthz
    port: clients
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 720
livenessProbe:
  httpGet:
    path: /healthz
    port: clients
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet:
    path: /readyz
    port: clients
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
lifecycle:
  preStop:
    exec:
      # Of this node itself: it hands over what it owns before it is told to stop.
      command: [/usr/bin/hadal, cluster, drain, --data-dir, /var/lib/hadal, --wait, 60s]
{{- end -}}

{{- define "hadal.env" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
- name: HADAL_CLUSTER_SECRET
  valueFrom:
    secretKeyRef:
      name: {{ .Values.cluster.existingSecret | default (include "hadal.fullname" .) }}
      key: {{ if .Values.cluster.existingSecret }}{{ .Values.cluster.existingSecretKey }}{{ else }}secret{{ end }}
{{- end -}}

{{- define "hadal.spread" -}}
affinity:
  podAntiAffinity:
    {{- if eq .root.Values.spread "required" }}
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "hadal.selector" .root | nindent 12 }}
            app.kubernetes.io/component: {{ .component }}
    {{- else }}
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "hadal.selector" .root | nindent 14 }}
              app.kubernetes.io/component: {{ .component }}
    {{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "hadal.selector" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .component }}
{{- end -}}
