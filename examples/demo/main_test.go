package main

import (
	"testing"

	"github.com/pgsession/pgsession/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }
