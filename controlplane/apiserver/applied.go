package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/registry/rest"
)

// misfit is how the library begins what it says of an applied object that has a key twice, or a field that there is not. It says so in an
// error without a status, which is answered with 500: as if the mistake were the server's.
const misfit = "failed to create typed patch object"

// applied is an update that answers a misfit as a bad request.
type applied struct{ rest.UpdatedObjectInfo }

func (a applied) UpdatedObject(ctx context.Context, old runtime.Object) (runtime.Object, error) {
	obj, err := a.UpdatedObjectInfo.UpdatedObject(ctx, old)
	if err != nil && strings.HasPrefix(err.Error(), misfit) {
		err = apierrors.NewBadRequest(err.Error())
	}
	return obj, err
}

// withMisfits does the same for custom resources, whose storage is the library's own: there only the answer can be had.
func withMisfits(api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodPatch || !strings.HasPrefix(req.Header.Get("Content-Type"), string(types.ApplyYAMLPatchType)) {
			api.ServeHTTP(w, req)
			return
		}
		f := &failures{ResponseWriter: w}
		api.ServeHTTP(f, req)
		f.finish()
	})
}

// failures holds back the answer of an internal error; others pass.
type failures struct {
	http.ResponseWriter
	failed bool
	body   bytes.Buffer
}

func (f *failures) WriteHeader(code int) {
	if f.failed = code == http.StatusInternalServerError; !f.failed {
		f.ResponseWriter.WriteHeader(code)
	}
}

func (f *failures) Write(b []byte) (int, error) {
	if f.failed {
		return f.body.Write(b)
	}
	return f.ResponseWriter.Write(b)
}

// finish sends what was held back.
func (f *failures) finish() {
	if !f.failed {
		return
	}
	code, body := http.StatusInternalServerError, f.body.Bytes()
	var s metav1.Status
	if json.Unmarshal(body, &s) == nil && strings.HasPrefix(s.Message, misfit) {
		s.Code, s.Reason = http.StatusBadRequest, metav1.StatusReasonBadRequest
		if b, err := json.Marshal(s); err == nil {
			code, body = http.StatusBadRequest, b
		}
	}
	f.Header().Del("Content-Length")
	f.ResponseWriter.WriteHeader(code)
	_, _ = f.ResponseWriter.Write(body) // who has hung up needs no answer
}
