package main

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// task is a part that runs until its context ends. Its error ends all the others.
type task struct {
	name string
	run  func(context.Context) error
}

// together starts tasks in a group; the first error cancels the group's context.
func together(ctx context.Context, group *errgroup.Group, tasks ...task) {
	for _, t := range tasks {
		group.Go(func() error {
			if err := t.run(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			return nil
		})
	}
}
