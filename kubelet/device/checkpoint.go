package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
)

// file is the checkpoint: the gifts, and the resources that plugins have registered, with a sum over both. A file that
// does not match its sum is not believed.
type file struct {
	Body json.RawMessage
	Sum  uint32 // CRC-32 (IEEE) of Body
}

type body struct {
	Gifts     []entry
	Resources []string
}

type entry struct {
	key
	gift
}

// load reads a checkpoint; one that is not there is empty.
func load(path string) (body, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return body{}, nil
	}
	if err != nil {
		return body{}, err
	}
	return parse(raw)
}

func parse(raw []byte) (body, error) {
	var f file
	if err := json.Unmarshal(raw, &f); err != nil {
		return body{}, fmt.Errorf("parse the record of devices given: %w", err)
	}
	if crc32.ChecksumIEEE(f.Body) != f.Sum {
		return body{}, errors.New("the record of devices given is damaged: its sum does not match")
	}
	var b body
	if err := json.Unmarshal(f.Body, &b); err != nil {
		return body{}, fmt.Errorf("parse the record of devices given: %w", err)
	}
	return b, nil
}

// save writes a checkpoint so that after a crash there is the old one or the new one.
func save(path string, b body) error {
	raw, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if raw, err = json.Marshal(file{Body: raw, Sum: crc32.ChecksumIEEE(raw)}); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new")
	if err != nil {
		return fmt.Errorf("record devices given: %w", err)
	}
	defer os.Remove(f.Name()) // gone already when it became the checkpoint
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("record devices given: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("record devices given: %w", err)
	}
	return nil
}
