package openapi

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
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
	documents := map[string][]byte{"v2.json.zst": v2}
	for path, doc := range v3 {
		in.Paths[path] = entry(path, doc)
		documents[fileName(path)] = doc
	}
	for name, doc := range documents {
		options := []zstd.EOption{zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1)}
		if name != dictionary {
			options = append(options, zstd.WithEncoderDictRaw(dictionaryID, documents[dictionary]))
		}
		z, err := zstd.NewWriter(nil, options...)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), z.EncodeAll(doc, nil), 0o644); err != nil {
			return fmt.Errorf("write OpenAPI document: %w", err)
		}
	}
	b, err := json.MarshalIndent(in, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "index.json"), b, 0o644)
}

// window has room for the dictionary and a document.
const window = 8 << 20
