package postgres

import (
	"context"
	"errors"

	"github.com/testcontainers/testcontainers-go"
)

// HideDocker makes it look as though no Docker daemon answered, and returns what undoes it.
func HideDocker() (undo func()) {
	findDocker = func(context.Context) (*testcontainers.DockerClient, error) {
		return nil, errors.Join(errors.New("hidden"), errors.New("by a test"))
	}
	return func() { findDocker = dockerDaemon }
}

// SetInstallDirectories replaces where installed binaries are looked for, and returns what undoes it.
func SetInstallDirectories(patterns ...string) (undo func()) {
	before := installDirectories
	installDirectories = patterns
	return func() { installDirectories = before }
}
