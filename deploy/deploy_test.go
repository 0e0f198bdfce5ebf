package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/coreos/go-systemd/v22/unit"
	"github.com/yannh/kubeconform/pkg/validator"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/kustomize/kyaml/openapi"
	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"
	"sigs.k8s.io/yaml"
)

const chart = "helm/hadal"

// drain is how long a node takes at most to stop, which everything that kills it
// afterwards must leave it.
const drain = 60 * time.Second

// secret is one that is long enough.
const secret = "0123456789abcdef0123456789abcdef"

// installations are values as people would give them.
var installations = map[string]string{
	"the least": `{cluster: {secret: ` + secret + `}, users: {ada: {password: secret}}}`,
	"secrets of others": `{cluster: {existingSecret: theirs, existingSecretKey: key}, existingUsersSecret: people,
		spread: required, replicas: 5}`,
	"edge nodes and an ingress": `{cluster: {secret: ` + secret + `, name: prod, bootstrapExpect: 3}, users: {ada: {password: secret}},
		edge: {enabled: true}, ingress: {enabled: true, className: nginx, tlsSecret: tls, annotations: {a: "b"}},
		service: {type: LoadBalancer, annotations: {c: "d"}}, persistence: {storageClass: fast},
		podAnnotations: {e: "f"}, nodeSelector: {disk: ssd}, priorityClassName: high, imagePullSecrets: [{name: pull}],
		tolerations: [{key: dedicated, operator: Exists}]}`,
	"one open node": `{cluster: {secret: ` + secret + `}, replicas: 1,
		config: {allowOpenAuth: true, auth: [{type: none}], permission: {type: none}}}`,
}

func values(t *testing.T, text string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// render is `helm template`.
func render(t *testing.T, text string) (map[string]string, error) {
	t.Helper()
	c, err := loader.Load(chart)
	if err != nil {
		t.Fatal(err)
	}
	v, err := util.ToRenderValues(c, values(t, text), common.ReleaseOptions{Name: "prod", Namespace: "realtime", Revision: 1, IsInstall: true}, nil)
	if err != nil {
		return nil, err
	}
	return engine.Render(c, v)
}

// manifests are what is rendered, document by document, without what is empty.
func manifests(t *testing.T, text string) []string {
	t.Helper()
	files, err := render(t, text)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if filepath.Ext(name) != ".yaml" {
			continue
		}
		for doc := range strings.SplitSeq(files[name], "\n---\n") {
			if strings.TrimSpace(doc) != "" {
				all = append(all, doc)
			}
		}
	}
	return all
}

func TestChartPassesHelmLint(t *testing.T) {
	for name, text := range installations {
		t.Run(name, func(t *testing.T) {
			result := lint.RunAll(chart, values(t, text), "realtime")
			for _, m := range result.Messages {
				if m.Severity > support.InfoSev {
					t.Errorf("%s", m)
				}
			}
		})
	}
}

func TestManifestsFitTheSchemasOfKubernetes(t *testing.T) {
	schemas := t.TempDir()
	writeSchemas(t, schemas)
	check, err := validator.New([]string{filepath.Join(schemas, "{{ .ResourceKind }}{{ .KindSuffix }}.json")}, validator.Opts{Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range installations {
		t.Run(name, func(t *testing.T) {
			for _, doc := range manifests(t, text) {
				for _, res := range check.Validate(name, io.NopCloser(strings.NewReader(doc))) {
					if res.Status != validator.Valid {
						t.Errorf("status %d: %v %v\n%s", res.Status, res.Err, res.ValidationErrors, doc)
					}
				}
			}
		})
	}
	// The check itself can tell.
	wrong := strings.Replace(manifests(t, installations["the least"])[0], "data:", "date:", 1)
	for _, res := range check.Validate("wrong", io.NopCloser(strings.NewReader(wrong))) {
		if res.Status != validator.Invalid {
			t.Errorf("a ConfigMap with `date` for `data` has status %d, want invalid", res.Status)
		}
	}
}

// writeSchemas writes a JSON schema for each kind that the chart uses, made of the
// OpenAPI document of Kubernetes that comes with kustomize. What kubeconform
// takes by default must be downloaded.
func writeSchemas(t *testing.T, dir string) {
	t.Helper()
	if openapi.SchemaForResourceType(kyaml.TypeMeta{APIVersion: "apps/v1", Kind: "StatefulSet"}) == nil {
		t.Fatal("kustomize knows no StatefulSet")
	}
	raw, err := json.Marshal(openapi.Schema().Definitions)
	if err != nil {
		t.Fatal(err)
	}
	var definitions map[string]map[string]any
	if err := json.Unmarshal(raw, &definitions); err != nil {
		t.Fatal(err)
	}
	for _, d := range definitions {
		if _, ok := d["properties"]; ok && d["additionalProperties"] == nil {
			d["additionalProperties"] = false
		}
		if d["format"] == "int-or-string" {
			delete(d, "type")
			d["oneOf"] = []any{map[string]any{"type": "string"}, map[string]any{"type": "integer"}}
		}
		// Formats of OpenAPI that JSON schema does not know.
		delete(d, "format")
	}
	for file, definition := range map[string]string{
		"configmap-v1":                  "io.k8s.api.core.v1.ConfigMap",
		"secret-v1":                     "io.k8s.api.core.v1.Secret",
		"service-v1":                    "io.k8s.api.core.v1.Service",
		"statefulset-apps-v1":           "io.k8s.api.apps.v1.StatefulSet",
		"deployment-apps-v1":            "io.k8s.api.apps.v1.Deployment",
		"poddisruptionbudget-policy-v1": "io.k8s.api.policy.v1.PodDisruptionBudget",
		"ingress-networking-v1":         "io.k8s.api.networking.v1.Ingress",
	} {
		if definitions[definition]["properties"] == nil {
			t.Fatalf("there is no schema of %s", definition)
		}
		b, err := json.Marshal(map[string]any{"$ref": "#/definitions/" + definition, "definitions": definitions})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file+".json"), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// objects decodes what is rendered into the types of the newest API, which knows
// every field and refuses others.
func objects(t *testing.T, text string) (all map[string]any) {
	t.Helper()
	all = map[string]any{}
	for _, doc := range manifests(t, text) {
		var head struct{ Kind string }
		if err := yaml.Unmarshal([]byte(doc), &head); err != nil {
			t.Fatal(err)
		}
		var o any
		switch head.Kind {
		case "ConfigMap":
			o = new(corev1.ConfigMap)
		case "Secret":
			o = new(corev1.Secret)
		case "Service":
			o = new(corev1.Service)
		case "StatefulSet":
			o = new(appsv1.StatefulSet)
		case "Deployment":
			o = new(appsv1.Deployment)
		case "PodDisruptionBudget":
			o = new(policyv1.PodDisruptionBudget)
		case "Ingress":
			o = new(networkingv1.Ingress)
		default:
			t.Fatalf("the test does not know the kind %q", head.Kind)
		}
		if err := yaml.UnmarshalStrict([]byte(doc), o); err != nil {
			t.Errorf("%v\n%s", err, doc)
		}
		named := o.(interface{ GetName() string })
		all[head.Kind+"/"+named.GetName()] = o
	}
	return all
}

func TestManifestsSayWhatTheyMust(t *testing.T) {
	for name, text := range installations {
		t.Run(name, func(t *testing.T) {
			all := objects(t, text)
			set, ok := all["StatefulSet/prod-hadal"].(*appsv1.StatefulSet)
			if !ok {
				t.Fatalf("there is no StatefulSet prod-hadal in %v", slices.Sorted(maps.Keys(all)))
			}
			if set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement {
				t.Error("nodes are started one by one, but none is ready alone")
			}
			peers, ok := all["Service/"+set.Spec.ServiceName].(*corev1.Service)
			if !ok {
				t.Fatalf("there is no Service %s", set.Spec.ServiceName)
			}
			if !peers.Spec.PublishNotReadyAddresses || peers.Spec.ClusterIP != corev1.ClusterIPNone {
				t.Error("nodes that are not ready cannot find each other")
			}
			pdb := all["PodDisruptionBudget/prod-hadal"].(*policyv1.PodDisruptionBudget)
			if got := pdb.Spec.MaxUnavailable; got == nil || got.IntValue() != 1 {
				t.Errorf("a disruption may take %v nodes, want 1", got)
			}
			pods := map[string]corev1.PodTemplateSpec{"core": set.Spec.Template}
			if d, ok := all["Deployment/prod-hadal-edge"].(*appsv1.Deployment); ok {
				pods["edge"] = d.Spec.Template
			}
			for role, pod := range pods {
				checkPod(t, role, pod)
			}
			matches := func(what string, want map[string]string) {
				for _, pod := range pods {
					if contains(pod.Labels, want) {
						return
					}
				}
				t.Errorf("%s selects no pod: %v", what, want)
			}
			matches("the Service of the nodes", peers.Spec.Selector)
			matches("the Service for clients", all["Service/prod-hadal"].(*corev1.Service).Spec.Selector)
			matches("the StatefulSet", set.Spec.Selector.MatchLabels)
			matches("the PodDisruptionBudget", pdb.Spec.Selector.MatchLabels)
		})
	}
}

func checkPod(t *testing.T, role string, pod corev1.PodTemplateSpec) {
	t.Helper()
	spec := pod.Spec
	if spec.EnableServiceLinks == nil || *spec.EnableServiceLinks {
		t.Errorf("%s: Services set variables HADAL_…, which a node refuses", role)
	}
	if got := time.Duration(*spec.TerminationGracePeriodSeconds) * time.Second; got <= drain {
		t.Errorf("%s: killed %v after it was told to stop, which may take %v", role, got, drain)
	}
	if pod.Annotations["checksum/config"] == "" {
		t.Errorf("%s: a changed configuration restarts nobody", role)
	}
	c := spec.Containers[0]
	if got := c.ReadinessProbe.HTTPGet.Path; got != "/readyz" {
		t.Errorf("%s: ready by %s", role, got)
	}
	if got := c.LivenessProbe.HTTPGet.Path; got != "/healthz" {
		t.Errorf("%s: alive by %s", role, got)
	}
	if got := strings.Join(c.Lifecycle.PreStop.Exec.Command, " "); !strings.HasPrefix(got, "/usr/bin/hadal cluster drain") {
		t.Errorf("%s: before it stops it runs %q", role, got)
	}
	// A flag that uses a variable must find it.
	for _, arg := range c.Args {
		for _, part := range strings.Split(arg, "$(")[1:] {
			name, _, _ := strings.Cut(part, ")")
			if !slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == name }) {
				t.Errorf("%s: %s uses a variable that is not there", role, arg)
			}
		}
	}
	for _, m := range c.VolumeMounts {
		if m.Name != "data" && !slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) {
			t.Errorf("%s: there is no volume %s", role, m.Name)
		}
	}
}

// contains says whether labels has all of want.
func contains(labels, want map[string]string) bool {
	for k, v := range want {
		if labels[k] != v {
			return false
		}
	}
	return true
}

func TestNodesAreToldWhereToJoin(t *testing.T) {
	set := objects(t, installations["the least"])["StatefulSet/prod-hadal"].(*appsv1.StatefulSet)
	const host = ".prod-hadal-peers.realtime.svc.cluster.local:6222"
	for _, want := range []string{
		"--join=prod-hadal-0" + host + ",prod-hadal-1" + host + ",prod-hadal-2" + host,
		"--cluster-advertise=$(POD_NAME)" + host,
		"--bootstrap-expect=3",
		"--cluster-name=prod",
	} {
		if got := set.Spec.Template.Spec.Containers[0].Args; !slices.Contains(got, want) {
			t.Errorf("started with %q, want %s among them", got, want)
		}
	}
}

func TestChartRefusesWhatCannotWork(t *testing.T) {
	for name, c := range map[string]struct{ values, want string }{
		"no secret":        {`{users: {ada: {password: x}}}`, "cluster.secret"},
		"a short secret":   {`{cluster: {secret: short}, users: {ada: {password: x}}}`, "secret"},
		"nobody to log in": {`{cluster: {secret: ` + secret + `}}`, "users"},
		"two nodes":        {`{cluster: {secret: ` + secret + `}, users: {ada: {password: x}}, replicas: 2}`, "replicas"},
		"a misspelt value": {`{cluster: {secrets: ` + secret + `}}`, "secrets"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := render(t, c.values)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("rendered with %v, want an error that names %s", err, c.want)
			}
		})
	}
}

func TestUnitLeavesTimeToDrain(t *testing.T) {
	text, err := os.ReadFile("hadal.service")
	if err != nil {
		t.Fatal(err)
	}
	sections, err := unit.DeserializeSections(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range sections {
		for _, e := range s.Entries {
			got[s.Section+"/"+e.Name] = e.Value
		}
	}
	for key, want := range map[string]string{
		"Service/Type": "exec", "Service/Restart": "on-failure", "Service/StateDirectory": "hadal",
		"Service/NoNewPrivileges": "yes", "Service/ProtectSystem": "strict", "Install/WantedBy": "multi-user.target",
	} {
		if got[key] != want {
			t.Errorf("%s = %q, want %q", key, got[key], want)
		}
	}
	stop, err := time.ParseDuration(got["Service/TimeoutStopSec"] + "s")
	if err != nil || stop <= drain {
		t.Errorf("killed %q s after it was told to stop (%v), which may take %v", got["Service/TimeoutStopSec"], err, drain)
	}
}

func TestComposeFileMakesThreeNodesOfOneCluster(t *testing.T) {
	options, err := cli.NewProjectOptions([]string{"compose.yml"}, cli.WithEnv([]string{"HADAL_CLUSTER_SECRET=" + secret}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	project, err := options.LoadProject(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got := project.ServiceNames(); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Fatalf("services %q, want a, b and c", got)
	}
	for name, s := range project.Services {
		for _, want := range []string{"--node-name=" + name, "--cluster-advertise=" + name + ":6222", "--join=a:6222,b:6222,c:6222", "--bootstrap-expect=3"} {
			if !slices.Contains(s.Command, want) {
				t.Errorf("%s is started with %q, want %s among them", name, s.Command, want)
			}
		}
		if s.StopGracePeriod == nil || time.Duration(*s.StopGracePeriod) <= drain {
			t.Errorf("%s is killed too early", name)
		}
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" {
				t.Errorf("%s lets everybody in, and can be reached at %s:%s", name, p.HostIP, p.Published)
			}
		}
		if got := s.Environment["HADAL_CLUSTER_SECRET"]; got == nil || *got != secret {
			t.Errorf("%s has another secret", name)
		}
	}
}
