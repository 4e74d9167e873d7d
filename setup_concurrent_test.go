package pgsession_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// atOnce is how many run Setup at once.
const atOnce = 32

// isolations are what an administrator can make the default.
var isolations = []string{"read committed", "repeatable read", "serializable"}

// expectOneSchema fails the test unless there is what one Setup makes, and it works.
func expectOneSchema(t *testing.T, address string) {
	t.Helper()
	pool := pgtest.Connect(t, address)
	expectSame(t, objects(t, pool), expectedObjects("pgsession", func(suffix string) string { return "session" + suffix }))
	if versions := column[int](t, pool, "select version from pgsession.session_schema_version"); len(versions) != 1 || versions[0] != migrationCount(t) {
		t.Errorf("the version table holds %v", versions)
	}
	useAll(t, setUp(t, pool.Query, pgsession.Config{SkipMigrate: true}), nil)
}

func TestSetupByManyConnectionsAtOnceMakesOneSchema(t *testing.T) {
	t.Parallel()
	type world struct {
		name, isolation string
		// begun: tern has made its version table, and no more.
		begun bool
	}
	var worlds []world
	for _, isolation := range isolations {
		worlds = append(worlds, world{isolation, isolation, false}, world{isolation + ", after tern began", isolation, true})
	}
	for _, w := range worlds {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			address, isolation := pgtest.Database(t), w.isolation
			if w.begun {
				conn := dial(t, address, nil)
				exec(t, conn, "create schema pgsession")
				must(t, migrator(t, conn, "pgsession.session_schema_version", nil).MigrateTo(t.Context(), 0))
			}
			start := make(chan struct{})
			var group sync.WaitGroup
			for range atOnce {
				conn := dial(t, address, map[string]string{"default_transaction_isolation": isolation})
				store := storeOf(t, conn.Query, pgsession.Config{Cleanup: withoutCleanup})
				group.Go(func() {
					<-start
					if err := store.Setup(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			close(start)
			group.Wait()
			expectOneSchema(t, address)
		})
	}
}

// The process of TestSetupByManyProcessesAtOnceMakesOneSchema: where it is told a database it is one
// of them.
const setupProcessVariable = "PGSESSION_TEST_SETUP_PROCESS"

func TestSetupByManyProcessesAtOnceMakesOneSchema(t *testing.T) {
	if address := os.Getenv(setupProcessVariable); address != "" {
		setupProcess(t, address)
		return
	}
	t.Parallel()
	program, err := os.Executable()
	must(t, err)
	address := pgtest.Database(t)

	type process struct {
		command *osexec.Cmd
		start   io.Closer
		output  *bufio.Reader
	}
	processes := make([]process, atOnce)
	for i := range processes {
		p := &processes[i]
		p.command = osexec.CommandContext(t.Context(), program, "-test.run=^"+t.Name()+"$", "-test.v=false")
		// PGOPTIONS is for every PostgreSQL client.
		p.command.Env = append(
			os.Environ(), setupProcessVariable+"="+address,
			"PGOPTIONS=-c default_transaction_isolation="+strings.ReplaceAll(isolations[i%len(isolations)], " ", `\ `),
		)
		p.start, err = p.command.StdinPipe()
		must(t, err)
		output, err := p.command.StdoutPipe()
		must(t, err)
		p.output = bufio.NewReader(output)
		p.command.Stderr = p.command.Stdout
		must(t, p.command.Start())
	}
	for i, p := range processes {
		if line, err := p.output.ReadString('\n'); line != "ready, "+isolations[i%len(isolations)]+"\n" {
			t.Errorf("process %d says %q, %v", i, line, err)
		}
	}
	for _, p := range processes {
		must(t, p.start.Close())
	}
	for i, p := range processes {
		output, _ := io.ReadAll(p.output)
		if err := p.command.Wait(); err != nil || !strings.HasPrefix(string(output), "done\n") {
			t.Errorf("process %d: %v\n%s", i, err, output)
		}
	}
	expectOneSchema(t, address)
}

// setupProcess says that it is ready, waits for the end of its input, and runs Setup.
func setupProcess(t *testing.T, address string) {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, address)
	must(t, err)
	defer func() { _ = conn.Close(ctx) }()
	fmt.Println("ready,", value[string](t, conn, "show default_transaction_isolation"))
	_, err = io.Copy(io.Discard, os.Stdin)
	must(t, err)
	store := storeOf(t, conn.Query, pgsession.Config{Cleanup: withoutCleanup})
	must(t, store.Setup(ctx))
	token, _, err := store.Create(ctx, pgsession.Session{Data: []byte("mine")})
	must(t, err)
	if session, err := store.Get(ctx, token); err != nil || string(session.Data) != "mine" {
		t.Fatalf("Get = %q, %v", session.Data, err)
	}
	fmt.Println("done")
}

func TestSetupTriesAgainWhereAnotherWasFaster(t *testing.T) {
	t.Parallel()
	for code, again := range map[string]bool{
		"40001": true, "55P03": true, "42P06": true, "42P07": true, "42723": true, "23505": true, "XX000": true, "PS001": true,
		"42501": false, "42601": false, "25006": false, "53100": false,
	} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Pool(t)
			cfg := pgsession.Config{Schema: pgtest.Schema(t), Cleanup: withoutCleanup}
			scripts := 0
			store := storeOf(t, func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
				if strings.HasPrefix(sql, "do ") {
					if scripts++; scripts == 1 {
						return nil, &pgconn.PgError{Code: code, Message: "on purpose"}
					}
				}
				return pool.Query(ctx, sql, args...)
			}, cfg)
			err := store.Setup(t.Context())
			if again {
				if err != nil || scripts != 2 {
					t.Errorf("after %d attempts: %v", scripts, err)
				}
				return
			}
			var cause *pgconn.PgError
			if !errors.As(schemaErrorOf(t, err).Err, &cause) || cause.Code != code || scripts != 1 {
				t.Errorf("after %d attempts: %v", scripts, err)
			}
		})
	}
}

func TestStoresOfOneDatabaseAreSetUpAtOnce(t *testing.T) {
	t.Parallel()
	// Some share a schema, which two at a time want to create.
	address := pgtest.Database(t)
	pool := pgtest.Connect(t, address)
	start := make(chan struct{})
	var group sync.WaitGroup
	for i := range 8 {
		conn := dial(t, address, nil)
		store := storeOf(t, conn.Query, pgsession.Config{
			Schema: fmt.Sprintf("s%d", i/2), Table: fmt.Sprintf("t%d", i), Cleanup: withoutCleanup,
		})
		group.Go(func() {
			<-start
			if err := store.Setup(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	close(start)
	group.Wait()
	var want []string
	for i := range 8 {
		schema := fmt.Sprintf("s%d", i/2)
		want = append(want, expectedObjects(schema, func(suffix string) string { return fmt.Sprintf("t%d", i) + suffix })...)
	}
	expectSame(t, objects(t, pool), want)
}

func TestOneStoreIsSetUpByManyGoroutinesAtOnce(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	pool := pgtest.Connect(t, address)
	store := storeOf(t, pool.Query, pgsession.Config{})
	var group sync.WaitGroup
	for i := range atOnce {
		group.Go(func() {
			set := store.Setup
			if i%2 == 0 {
				set = store.Migrate
			}
			if err := set(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	expectOneSchema(t, address)
}
