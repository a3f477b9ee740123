package openapi

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Write replaces the documents in dir (spec/ of this package): v3 by path, and v2.
func Write(dir string, v3 map[string][]byte, v2 []byte) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	in := Index{Paths: map[string]Entry{}}
	for path, doc := range v3 {
		in.Paths[path] = entry(path, doc)
		if err := writeGzip(filepath.Join(dir, fileName(path)), doc); err != nil {
			return err
		}
	}
	if err := writeGzip(filepath.Join(dir, "v2.json.gz"), v2); err != nil {
		return err
	}
	b, err := json.MarshalIndent(in, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "index.json"), b, 0o644)
}

// writeGzip writes no time and no name, so that the same document is the same file.
func writeGzip(path string, doc []byte) error {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(doc); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write OpenAPI document: %w", err)
	}
	return nil
}
