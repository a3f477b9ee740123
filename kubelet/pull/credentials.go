package pull

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// login is one entry of a docker configuration file.
type login struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// credentials are the logins of the pod's pull secrets that fit the image, most specific first. A secret that is
// missing or malformed is passed over: the pull may succeed without it, and its failure will say enough.
func (p *Puller) credentials(ctx context.Context, pod *corev1.Pod, image string) []*runtimeapi.AuthConfig {
	type match struct {
		key  string
		auth *runtimeapi.AuthConfig
	}
	var found []match
	for _, ref := range pod.Spec.ImagePullSecrets {
		if ref.Name == "" {
			continue
		}
		s, err := p.secrets.Secret(ctx, pod.Namespace, ref.Name)
		if err != nil {
			p.events.ContainerEvent(pod, "", corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret",
				"Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", ref.Name)
			continue
		}
		for key, l := range logins(s) {
			if Matches(key, image) {
				found = append(found, match{key, l.config(key)})
			}
		}
	}
	slices.SortStableFunc(found, func(a, b match) int { return len(b.key) - len(a.key) })
	var out []*runtimeapi.AuthConfig
	for _, m := range found {
		out = append(out, m.auth)
	}
	return out
}

// logins parses both forms of pull secret.
func logins(s *corev1.Secret) map[string]login {
	var modern struct {
		Auths map[string]login `json:"auths"`
	}
	if b, has := s.Data[corev1.DockerConfigJsonKey]; has && json.Unmarshal(b, &modern) == nil {
		return modern.Auths
	}
	var old map[string]login
	if b, has := s.Data[corev1.DockerConfigKey]; has && json.Unmarshal(b, &old) == nil {
		return old
	}
	return nil
}

func (l login) config(server string) *runtimeapi.AuthConfig {
	out := &runtimeapi.AuthConfig{
		Username: l.Username, Password: l.Password, ServerAddress: server,
		IdentityToken: l.IdentityToken, RegistryToken: l.RegistryToken,
	}
	if l.Auth != "" && out.Username == "" {
		if b, err := base64.StdEncoding.DecodeString(l.Auth); err == nil {
			user, pass, _ := strings.Cut(string(b), ":")
			out.Username, out.Password = user, strings.TrimRight(pass, "\x00")
		}
	}
	return out
}

// Matches tells whether the key of a login ("registry.example:5000/team", "*.example.com", or the old URL form)
// covers an image. Host parts match label by label, with * inside a label; the path matches as a prefix.
func Matches(key, image string) bool {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return false
	}
	host, repo := reference.Domain(named), reference.Path(named)
	if !strings.Contains(key, "://") {
		key = "https://" + key
	}
	u, err := url.Parse(key)
	if err != nil {
		return false
	}
	want, prefix := u.Host, strings.Trim(u.Path, "/")
	if prefix == "v1" || prefix == "v2" { // index.docker.io/v1/ is how logins to Docker Hub are written
		prefix = ""
	}
	if want == "index.docker.io" || want == "registry-1.docker.io" {
		want = "docker.io"
	}
	if !hostMatches(want, host) {
		return false
	}
	return prefix == "" || repo == prefix || strings.HasPrefix(repo, prefix+"/")
}

func hostMatches(pattern, host string) bool {
	pHost, pPort, _ := strings.Cut(pattern, ":")
	hHost, hPort, _ := strings.Cut(host, ":")
	if pPort != hPort {
		return false
	}
	ps, hs := strings.Split(pHost, "."), strings.Split(hHost, ".")
	if len(ps) != len(hs) {
		return false
	}
	for i := range ps {
		if ok, err := path.Match(ps[i], hs[i]); err != nil || !ok {
			return false
		}
	}
	return true
}
