package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"embed"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"time"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
)

//go:embed testdata
var testdata embed.FS

// truths are names that YAML takes for true and false.
var truths = regexp.MustCompile(`(: |\[)(n|y|no)([,}\]\n])`)

func sortedKeys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }

// corpus reads the objects to begin with: a file for each group.
func corpus() ([]map[string]any, error) {
	request, bundle, err := certificates()
	if err != nil {
		return nil, err
	}
	var out []map[string]any
	err = fs.WalkDir(testdata, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := testdata.ReadFile(path)
		if err != nil {
			return err
		}
		raw = truths.ReplaceAll(raw, []byte(`$1"$2"$3`))
		raw = bytes.ReplaceAll(raw, []byte("CSRREQUEST"), []byte(base64.StdEncoding.EncodeToString(request)))
		if stub, _ := pem.Decode(request); stub != nil {
			raw = bytes.ReplaceAll(raw, []byte("STUBREQUEST"), []byte(base64.StdEncoding.EncodeToString(stub.Bytes)))
		}
		raw = bytes.ReplaceAll(raw, []byte("BUNDLE"), []byte(strconv.Quote(string(bundle))))
		docs := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(raw), 4096)
		for {
			var o map[string]any
			switch err := docs.Decode(&o); {
			case errors.Is(err, io.EOF):
				return nil
			case err != nil:
				return fmt.Errorf("%s: %w", path, err)
			}
			if o != nil {
				out = append(out, integers(o).(map[string]any))
			}
		}
	})
	return out, err
}

// certificates makes a request of a certificate and a trust bundle, both in PEM.
func certificates() (request, bundle []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "apidiff"}}, key)
	if err != nil {
		return nil, nil, err
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "apidiff"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// integers makes whole floats integers, as the change of a copy wants them.
func integers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = integers(v[k])
		}
	case []any:
		for i := range v {
			v[i] = integers(v[i])
		}
	case float64:
		if v == float64(int64(v)) {
			return int64(v)
		}
	}
	return v
}
