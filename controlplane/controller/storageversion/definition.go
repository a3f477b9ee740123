package storageversion

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

const definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"

// definition is the part of a CustomResourceDefinition that a migration reads; nil stands for a resource that is built in.
type definition struct {
	api      rest.Interface
	Metadata struct {
		Name       string `json:"name"`
		Generation int64  `json:"generation"`
	} `json:"metadata"`
	Spec struct {
		Versions []struct {
			Name    string `json:"name"`
			Storage bool   `json:"storage"`
		} `json:"versions"`
	} `json:"spec"`
	Status struct {
		Conditions []condition `json:"conditions"`
	} `json:"status"`
}

type condition struct {
	Type               string    `json:"type"`
	Status             string    `json:"status"`
	Reason             string    `json:"reason"`
	Message            string    `json:"message"`
	LastTransitionTime time.Time `json:"lastTransitionTime"`
	ObservedGeneration int64     `json:"observedGeneration,omitempty"`
}

const migrating = "StorageMigrating"

func (m *migrator) definition(ctx context.Context, r schema.GroupResource) (*definition, error) {
	d := &definition{api: m.Client.StoragemigrationV1().RESTClient()}
	return d.read(ctx, r.String())
}

func (d *definition) read(ctx context.Context, name string) (*definition, error) {
	data, err := d.api.Get().AbsPath(definitions+name).SetHeader("Accept", "application/json").DoRaw(ctx)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	next := &definition{api: d.api}
	if err == nil {
		err = json.Unmarshal(data, next)
	}
	if err != nil {
		return nil, fmt.Errorf("read the definition %s: %w", name, err)
	}
	return next, nil
}

// begin says that a migration runs, and of which generation of the definition.
func (d *definition) begin(ctx context.Context, by string) error {
	if d == nil {
		return nil
	}
	return d.apply(ctx, condition{Status: "True", Reason: "MigrationRunning", Message: "Migration " + by + " is running"}, "")
}

// end says how it ended. If the definition is still the one that it began with, objects are of the version stored now alone.
func (d *definition) end(ctx context.Context, success bool) error {
	if d == nil {
		return nil
	}
	now, err := d.read(ctx, d.Metadata.Name)
	if now == nil || err != nil {
		return err
	}
	c, stored := now.outcome(success)
	return now.apply(ctx, c, stored)
}

// outcome is the condition in the end, and the only version that objects are stored in; empty if that is not known.
func (d *definition) outcome(success bool) (c condition, stored string) {
	c = condition{Status: "False", Reason: "MigrationFailed", Message: "The migration has failed"}
	if !success {
		return c, ""
	}
	c.Reason, c.Message = "MigrationSucceeded", "The migration has succeeded but the stored versions have not been updated due to a generation mismatch"
	for _, have := range d.Status.Conditions {
		if have.Type != migrating || have.ObservedGeneration != d.Metadata.Generation {
			continue
		}
		for _, v := range d.Spec.Versions {
			if v.Storage {
				stored, c.Message = v.Name, "The migration has succeeded and the stored versions have been updated"
			}
		}
	}
	return c, stored
}

func (d *definition) apply(ctx context.Context, c condition, stored string) error {
	c.Type, c.LastTransitionTime, c.ObservedGeneration = migrating, time.Now().UTC().Truncate(time.Second), d.Metadata.Generation
	status := map[string]any{"conditions": []condition{c}}
	if stored != "" {
		status["storedVersions"] = []string{stored}
	}
	body, err := json.Marshal(map[string]any{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": d.Metadata.Name}, "status": status})
	if err != nil {
		return err
	}
	err = d.api.Patch(types.ApplyPatchType).AbsPath(definitions+d.Metadata.Name+"/status").Param("fieldManager", manager).Param("force", "true").
		SetHeader("Accept", "application/json").Body(body).Do(ctx).Error()
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
