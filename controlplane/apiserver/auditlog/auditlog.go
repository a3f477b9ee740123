package auditlog

import (
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"gopkg.in/natefinch/lumberjack.v2"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/plugin/pkg/audit/buffered"
	logfile "k8s.io/apiserver/plugin/pkg/audit/log"
)

const (
	// waiting is how many events may wait for the disk; the next ones are dropped. One of metadata takes about 2 kB.
	waiting = 4096
	// fileMegabytes and oldFiles bound the log.
	fileMegabytes = 32
	oldFiles      = 4
)

//go:embed policy.yaml
var builtin []byte

// Log is where events go and which do.
type Log struct {
	Backend audit.Backend
	Policy  audit.PolicyRuleEvaluator
}

// Open starts a log in dir/audit.log (0600). policyFile replaces the built-in policy unless it is empty.
func Open(dir, policyFile string) (Log, error) {
	rules, err := load(policyFile)
	if err != nil {
		return Log{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Log{}, fmt.Errorf("make the audit log's folder: %w", err)
	}
	return to(&lumberjack.Logger{Filename: filepath.Join(dir, "audit.log"), MaxSize: fileMegabytes, MaxBackups: oldFiles}, rules), nil
}

func to(w io.Writer, rules *auditinternal.Policy) Log {
	file := logfile.NewBackend(w, logfile.FormatJson, auditv1.SchemeGroupVersion)
	return Log{
		// Batches of one: a larger one would wake up every so often to see whether it is due.
		Backend: buffered.NewBackend(file, buffered.BatchConfig{BufferSize: waiting, MaxBatchSize: 1}),
		Policy:  policy.NewPolicyRuleEvaluator(rules),
	}
}

func load(file string) (*auditinternal.Policy, error) {
	if file == "" {
		return policy.LoadPolicyFromBytes(builtin)
	}
	p, err := policy.LoadPolicyFromFile(file)
	if err != nil {
		return nil, fmt.Errorf("audit policy: %w", err)
	}
	return p, nil
}
