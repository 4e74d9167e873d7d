package pgsession_test

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io/fs"
	"os"
	osexec "os/exec"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

var updateVersions = flag.Bool("update", false, "TestSQLVersion: write sql/versions.lock anew")

// versionsFile has a line for each version of the functions that was ever released, and one for each
// migration. Lines are appended; what a release contains stays as it is.
const versionsFile = "sql/versions.lock"

const versionsHeader = `# What each version of sql/ and each migration was, by SHA-256. Written by
# go test -run TestSQLVersion -update
# which refuses to change a line that a release has: after one, lines are only appended.
`

// sqlFiles are the files of a directory whose names end in .sql, in order.
func sqlFiles(t *testing.T, dir string) (names []string) {
	t.Helper()
	must(t, fs.WalkDir(os.DirFS(dir), ".", func(name string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(name, ".sql") {
			names = append(names, name)
		}
		return err
	}))
	if len(names) == 0 {
		t.Fatalf("no files in %s", dir)
	}
	return names
}

// hashOf is the hash of names and contents.
func hashOf(t *testing.T, dir string, names ...string) string {
	t.Helper()
	h := sha256.New()
	for _, name := range names {
		content, err := os.ReadFile(path.Join(dir, name))
		must(t, err)
		// Lengths, so that nothing can move from one file to the next unseen.
		fmt.Fprintf(h, "%d %s %d %s", len(name), name, len(content), content)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// versionInFile is the number in sql/schema_version.sql.
func versionInFile(t *testing.T) int {
	t.Helper()
	content, err := os.ReadFile("sql/schema_version.sql")
	must(t, err)
	return numberIn(t, string(content), `(?m)^\s*functions := (\d+);$`)
}

func numberIn(t *testing.T, text, pattern string) int {
	t.Helper()
	matches := regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1)
	if len(matches) != 1 {
		t.Fatalf("%s is there %d times", pattern, len(matches))
	}
	n, err := strconv.Atoi(matches[0][1])
	must(t, err)
	return n
}

// wantVersions are the lines that the present files ask for.
func wantVersions(t *testing.T) (functions string, migrations []string) {
	t.Helper()
	files := sqlFiles(t, "migrations")
	for i, name := range files {
		if !strings.HasPrefix(name, fmt.Sprintf("%03d_", i+1)) {
			t.Errorf("migration %d is %s", i+1, name)
		}
		migrations = append(migrations, fmt.Sprintf("migration %d %s %s", i+1, hashOf(t, "migrations", name), name))
	}
	functions = fmt.Sprintf("functions %d %s migrations %d", versionInFile(t), hashOf(t, "sql", sqlFiles(t, "sql")...), len(files))
	return functions, migrations
}

// key is what a line is about: a line of the same key is another state of the same thing.
func key(line string) string {
	fields := strings.Fields(line)
	return strings.Join(fields[:min(2, len(fields))], " ")
}

func versionLines(content string) (lines []string) {
	for line := range strings.Lines(content) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines
}

// releasedVersions are the lines of the file in every tag v*.
func releasedVersions(t *testing.T) (lines []string) {
	t.Helper()
	if _, err := os.Stat(".git"); err != nil {
		return nil // not a clone, so not where lines are written or released
	}
	tags, err := osexec.CommandContext(t.Context(), "git", "tag", "--list", "v*").Output()
	if err != nil {
		t.Fatalf("git tag: %v", err)
	}
	for tag := range strings.FieldsSeq(string(tags)) {
		content, err := osexec.CommandContext(t.Context(), "git", "show", tag+":"+versionsFile).Output()
		if err != nil {
			t.Fatalf("git show %s:%s: %v", tag, versionsFile, err)
		}
		lines = append(lines, versionLines(string(content))...)
	}
	return lines
}

// mergeVersions puts the lines that the present files ask for into a file's lines, unless they are
// another state of what was released.
func mergeVersions(lines, released, want []string) (merged []string, err error) {
	merged = slices.Clone(lines)
	for _, line := range want {
		if i := slices.IndexFunc(released, func(r string) bool { return key(r) == key(line) }); i >= 0 && released[i] != line {
			what := "raise functionsVersion in setup.go and the number in sql/schema_version.sql, which makes a new line"
			if strings.HasPrefix(line, "migration ") {
				what = "undo the change and add a migration"
			}
			return nil, fmt.Errorf("%s was released as it is in %s and must not change: %s", key(line), versionsFile, what)
		}
		i := slices.IndexFunc(merged, func(m string) bool { return key(m) == key(line) })
		if i < 0 {
			merged = append(merged, line)
		} else {
			merged[i] = line
		}
	}
	return merged, nil
}

// TestSQLVersion has no other name because people run it by it: see versionsHeader.
func TestSQLVersion(t *testing.T) {
	functions, migrations := wantVersions(t)
	want := append([]string{functions}, migrations...)
	released := releasedVersions(t)
	content, err := os.ReadFile(versionsFile)
	if err != nil && !*updateVersions {
		t.Fatal(err)
	}
	lines := versionLines(string(content))
	if *updateVersions {
		if lines, err = mergeVersions(lines, released, want); err != nil {
			t.Fatal(err)
		}
		must(t, os.WriteFile(versionsFile, []byte(versionsHeader+strings.Join(lines, "\n")+"\n"), 0o644))
	}
	for _, line := range released {
		if !slices.Contains(lines, line) {
			t.Errorf("a release has the line %q, and it is gone", line)
		}
	}
	for _, line := range want {
		if slices.Contains(lines, line) {
			continue
		}
		if strings.HasPrefix(line, "migration ") {
			t.Errorf("%s has changed, or is new. A migration that was released must not change: add another instead. "+
				"Then run\n\tgo test -run TestSQLVersion -update", key(line))
		} else {
			t.Errorf("sql/ has changed, or the number of migrations has, and the version of the functions is still %d: Setup would not "+
				"install the change where that version is. If version %[1]d was released, raise functionsVersion in "+
				"setup.go and the number in sql/schema_version.sql. Then run\n\tgo test -run TestSQLVersion -update", versionInFile(t))
		}
	}
	for _, line := range lines {
		if n := numberIn(t, line, `^\w+ (\d+) `); strings.HasPrefix(line, "functions ") && n > versionInFile(t) ||
			strings.HasPrefix(line, "migration ") && n > len(migrations) {
			t.Errorf("a line is about what is not there: %s", line)
		}
	}
}

func TestAReleasedVersionIsNeverWrittenOver(t *testing.T) {
	t.Parallel()
	lines := []string{"functions 1 aa migrations 1", "migration 1 bb 001_a.sql"}
	for _, c := range []struct {
		name           string
		released, want []string
		merged         []string // nil: refused
	}{
		{"nothing new", lines, lines, lines},
		{"changed before a release", nil, []string{"functions 1 cc migrations 1", "migration 1 dd 001_a.sql"}, []string{"functions 1 cc migrations 1", "migration 1 dd 001_a.sql"}},
		{"functions changed after it", lines, []string{"functions 1 cc migrations 1", lines[1]}, nil},
		{"a migration changed after it", lines, []string{lines[0], "migration 1 cc 001_a.sql"}, nil},
		{"a migration renamed after it", lines, []string{lines[0], "migration 1 bb 001_b.sql"}, nil},
		{"a migration added under the same version", lines, []string{"functions 1 aa migrations 2", lines[1], "migration 2 ee 002_b.sql"}, nil},
		{
			"a new version", lines,
			[]string{"functions 2 cc migrations 2", lines[1], "migration 2 ee 002_b.sql"},
			[]string{lines[0], lines[1], "functions 2 cc migrations 2", "migration 2 ee 002_b.sql"},
		},
	} {
		merged, err := mergeVersions(lines, c.released, c.want)
		if (err != nil) != (c.merged == nil) || !slices.Equal(merged, c.merged) {
			t.Errorf("%s: %q, %v", c.name, merged, err)
		}
	}
}

func TestTheVersionsInGoAndInSQLAreTheSame(t *testing.T) {
	t.Parallel()
	var script strings.Builder
	must(t, pgsession.SetupSQL(&script, pgsession.Config{}))
	inGo := numberIn(t, script.String(), `(?m)^\s*if coalesce\(v_functions, 0\) <= (\d+) then$`)
	pool := pgtest.Pool(t)
	schema := pgtest.Schema(t)
	setUp(t, pool.Query, pgsession.Config{Schema: schema})
	installed := value[int](t, pool, "select functions from "+identifier(schema, "session_schema_version")+"()")
	migration := value[int](t, pool, "select migration from "+identifier(schema, "session_schema_version")+"()")
	if inFile := versionInFile(t); inGo != inFile || installed != inFile {
		t.Errorf("functionsVersion is %d, sql/schema_version.sql has %d, and %d is installed", inGo, inFile, installed)
	}
	if migration != migrationCount(t) {
		t.Errorf("migration %d is installed, of %d", migration, migrationCount(t))
	}
}

// heading is the comment that a file begins with, less template comments.
func heading(content string) (lines []string) {
	content = regexp.MustCompile(`(?s)^\s*\{\{-? ?/\*.*?\*/ ?-?\}\}\s*`).ReplaceAllString(content, "")
	for line := range strings.Lines(content) {
		comment, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "--")
		if !ok {
			break
		}
		lines = append(lines, strings.TrimPrefix(comment, " "))
	}
	return lines
}

func TestEveryFunctionsFileBeginsWithWhatItDoes(t *testing.T) {
	t.Parallel()
	functions := 0
	for _, name := range sqlFiles(t, "sql") {
		content, err := os.ReadFile("sql/" + name)
		must(t, err)
		text := string(content)
		declared := regexp.MustCompile(`create or replace (function|procedure) \{\{ \.schema \}\}\."\{\{ \.prefix \}\}_(\w+)"`).
			FindAllStringSubmatch(text, -1)
		if len(declared) == 0 {
			if !strings.HasPrefix(strings.TrimSpace(text), "--") && !strings.HasPrefix(text, "{{- /*") && !strings.HasPrefix(name, "partial/") {
				t.Errorf("%s does not begin with a comment", name)
			}
			continue
		}
		functions++
		head := heading(text)
		comment := strings.Join(head, "\n")
		if len(declared) != 1 || declared[0][2]+".sql" != name {
			t.Errorf("%s declares %q", name, declared)
			continue
		}
		if !strings.HasPrefix(comment, "<table>_"+declared[0][2]+"(") {
			t.Errorf("%s does not begin with the function's name: %.80q", name, comment)
		}
		sections := []string{"locks ", "notifies "}
		if declared[0][1] == "function" {
			sections = append(sections, "result ")
		}
		signature, _, _ := strings.Cut(text[strings.Index(text, "create or replace"):], "language plpgsql")
		params := regexp.MustCompile(`\bp_\w+`).FindAllString(signature, -1)
		if len(params) > 0 {
			sections = append(sections, "arguments ")
		}
		for _, section := range sections {
			if !slices.ContainsFunc(head, func(line string) bool { return strings.HasPrefix(line, section) }) {
				t.Errorf("the heading of %s has no %q", name, section)
			}
		}
		for _, p := range params {
			if !strings.Contains(comment, p) && !strings.Contains(comment, "arguments  as <table>_") {
				t.Errorf("the heading of %s says nothing of %s", name, p)
			}
		}
		results, _, _ := strings.Cut(signature, ")\nlanguage")
		for _, m := range regexp.MustCompile(`\bout (\w+)`).FindAllStringSubmatch(results, -1) {
			column := m[1]
			own := slices.ContainsFunc(ownColumns, func(o struct{ name, typeName, other string }) bool { return o.name == column })
			if !own && column != "columns" && !strings.Contains(comment, column) && !strings.Contains(strings.Join(headingOf(t, "get.sql"), "\n"), column) {
				t.Errorf("the heading of %s says nothing of the result %s", name, column)
			}
		}
	}
	if functions != 37 {
		t.Errorf("%d functions have a file, want 37", functions)
	}
}

func headingOf(t *testing.T, name string) []string {
	t.Helper()
	content, err := os.ReadFile("sql/" + name)
	must(t, err)
	return heading(string(content))
}

func TestTheFilesSuitDatabasesOfEveryEncoding(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"sql", "migrations"} {
		for _, name := range sqlFiles(t, dir) {
			content, err := os.ReadFile(path.Join(dir, name))
			must(t, err)
			if i := strings.IndexFunc(string(content), func(r rune) bool { return r > '~' || r < ' ' && r != '\n' }); i >= 0 {
				t.Errorf("%s/%s has at byte %d what is not printable ASCII", dir, name, i)
			}
		}
	}
}

func TestPLpgSQLCheckFindsNothing(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	pgtest.ExtensionAt(t, address, "plpgsql_check")
	pool := pgtest.Connect(t, address)
	plain := pgsession.Config{Schema: "plain", Cleanup: withoutCleanup}
	promoted := pgsession.Config{Schema: "promoted", Cleanup: withoutCleanup}
	for i, sample := range columnSamples {
		promoted.Columns = append(promoted.Columns, pgsession.Column{Name: fmt.Sprint("c", i), Type: sample.typeName})
	}
	setUp(t, pool.Query, plain)
	setUp(t, pool.Query, promoted)

	// That it would find something:
	exec(t, pool, `
		create function public.bad(p_unused text) returns int4 language plpgsql as $$
		declare v_never int4; begin execute 'select ' || p_unused; return 'x'; end $$`)
	check := func(function string) []string {
		return column[string](t, pool, `
			select concat_ws(' ', f.level, f.sqlstate, 'line', f.lineno, f.message, f.detail, f.hint, f.query)
			  from plpgsql_check_function_tb(
			           $1::text::regprocedure, fatal_errors => false, other_warnings => true, extra_warnings => true,
			           performance_warnings => true, security_warnings => true, compatibility_warnings => true) as f`, function)
	}
	if found := check("public.bad(text)"); len(found) < 2 {
		t.Fatalf("plpgsql_check finds only %q in a bad function", found)
	}
	checked := 0
	for _, function := range column[string](t, pool, `
		select p.oid::regprocedure::text from pg_proc as p
		 where p.pronamespace in ('plain'::regnamespace, 'promoted'::regnamespace)`) {
		checked++
		for _, finding := range check(function) {
			t.Errorf("%s: %s", function, finding)
		}
	}
	if checked != 74 {
		t.Errorf("%d functions were checked", checked)
	}
}
