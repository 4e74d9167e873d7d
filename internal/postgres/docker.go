package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"
	containers "github.com/testcontainers/testcontainers-go/modules/postgres"
)

// DefaultImage is the container image that [Start] runs where PGSESSION_TEST_IMAGE names no other.
const DefaultImage = "postgres:17.6-alpine"

const (
	containerPort = "5432/tcp"
	// probeTimeout bounds the search for a Docker daemon. A socket on this machine refuses at once;
	// this is for a DOCKER_HOST that is out of reach.
	probeTimeout = 5 * time.Second
	// controlTimeout bounds one request to the daemon where the caller gave no context.
	controlTimeout = 30 * time.Second
)

// docker is a server in a container.
type docker struct {
	container *containers.PostgresContainer
	client    *testcontainers.DockerClient
	url, name string
	mu        sync.Mutex
}

func startContainer(ctx context.Context, opts Options) (*Server, error) {
	daemon, err := findDocker(ctx)
	if err != nil {
		return nil, &absentError{"no Docker daemon answers: " + oneLine(err)}
	}
	image := os.Getenv(envImage)
	server, err := runContainer(ctx, daemon, image, opts)
	if err != nil {
		err = errors.Join(err, daemon.Close())
		if image == "" && ctx.Err() == nil {
			// A daemon that cannot have the image, being off line for one, is no better than none,
			// unless the image was asked for by name.
			return nil, &absentError{fmt.Sprintf("Docker cannot run %s: %s", DefaultImage, oneLine(err))}
		}
		return nil, err
	}
	return server, nil
}

// oneLine renders an error that joins several.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func runContainer(
	ctx context.Context, daemon *testcontainers.DockerClient, image string, opts Options,
) (*Server, error) {
	if image == "" {
		image = DefaultImage
	}
	d := &docker{client: daemon, name: "pgsession-" + randomHex()}
	command := []string{"postgres"}
	parameters := settings(opts, d.name)
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		command = append(command, "-c", name+"="+parameters[name])
	}
	password := randomHex() + randomHex()

	var err error
	for range portAttempts {
		var port int
		if port, err = freePort(); err != nil {
			return nil, err
		}
		d.container, err = containers.Run(ctx, image,
			containers.WithUsername("postgres"),
			containers.WithPassword(password),
			containers.WithDatabase("postgres"),
			testcontainers.WithEnv(map[string]string{"POSTGRES_INITDB_ARGS": "-E UTF8 --locale=C"}),
			testcontainers.WithCmd(command...),
			// A port of our choice, since Docker's own would be another one after a restart.
			testcontainers.WithHostConfigModifier(publish(ctx, port)),
			containers.BasicWaitStrategies(),
			testcontainers.WithLogger(log.NewNoopLogger()),
		)
		if err == nil {
			break
		}
		err = errors.Join(err, d.logged(ctx), testcontainers.TerminateContainer(d.container))
		if !portIsTaken(err) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("postgres: run %s: %w", image, err)
	}
	d.url, err = d.container.ConnectionString(ctx, "sslmode=disable")
	if err == nil {
		err = awaitAnswer(ctx, d.url, d.name, nil)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("postgres: run %s: %w", image, err), d.remove())
	}
	return &Server{url: d.url, source: "docker " + image, owned: d}, nil
}

// logged returns what a container that failed has logged, as an error to join to that of its failing.
func (d *docker) logged(ctx context.Context) error {
	if d.container == nil {
		return nil
	}
	reader, err := d.container.Logs(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = reader.Close() }()
	content, err := io.ReadAll(reader)
	if err != nil {
		return err
	}
	return errors.New(tail(content))
}

func portIsTaken(err error) bool {
	return strings.Contains(err.Error(), "port is already allocated") ||
		strings.Contains(err.Error(), "address already in use")
}

// publish maps the server's port to one of the Docker host, on the loopback interface where that host
// is this machine.
func publish(ctx context.Context, port int) func(*container.HostConfig) {
	binding := network.PortBinding{HostPort: strconv.Itoa(port)}
	if isLoopback(dockerHost(ctx)) {
		binding.HostIP = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return func(config *container.HostConfig) {
		config.PortBindings = network.PortMap{network.MustParsePort(containerPort): {binding}}
	}
}

// dockerHost returns where the ports of containers are to be found, else "".
func dockerHost(ctx context.Context) string {
	provider, err := testcontainers.NewDockerProvider()
	if err != nil {
		return ""
	}
	defer func() { _ = provider.Close() }()
	host, err := provider.DaemonHost(ctx)
	if err != nil {
		return ""
	}
	return host
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// findDocker is dockerDaemon, but for tests.
var findDocker = dockerDaemon

// dockerDaemon connects to the daemon that testcontainers would use. The answer that there is none
// is testcontainers' own to remember, for the life of this process.
func dockerDaemon(ctx context.Context) (*testcontainers.DockerClient, error) {
	quiet.Do(func() { log.SetDefault(log.NewNoopLogger()) })
	// Not the caller's context: what testcontainers remembers is not to depend on his patience.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTimeout)
	defer cancel()
	daemon, err := testcontainers.NewDockerClientWithOpts(ctx)
	if err != nil {
		return nil, err
	}
	info, err := daemon.Info(ctx, client.InfoOptions{})
	if err != nil {
		return nil, errors.Join(err, daemon.Close())
	}
	return daemon, overrideHost(info.Info.Name)
}

// quiet keeps testcontainers from reporting each step on standard error, in demos too.
var quiet sync.Once

// overrideHost corrects where testcontainers looks for a container's ports. Inside a container, which
// it takes a file at the root for, it dials the gateway, as is right beside a container but for a
// minute in vain where the daemon runs in the same place as we do. There the daemon's host name is
// ours.
func overrideHost(daemonHostname string) error {
	const variable = "TESTCONTAINERS_HOST_OVERRIDE"
	if _, set := os.LookupEnv(variable); set {
		return nil
	}
	_, takenForContainer := os.Stat("/.dockerenv")
	hostname, nameless := os.Hostname()
	if takenForContainer == nil && nameless == nil && hostname == daemonHostname {
		return os.Setenv(variable, "127.0.0.1")
	}
	return nil
}

func (d *docker) restart(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.end(ctx, "SIGINT"); err != nil {
		return err
	}
	_, err := d.client.ContainerStart(ctx, d.container.GetContainerID(), client.ContainerStartOptions{})
	if err != nil {
		return fmt.Errorf("postgres: start the container: %w", err)
	}
	return awaitAnswer(ctx, d.url, d.name, nil)
}

func (d *docker) shutdown(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.end(ctx, "SIGQUIT")
}

func (d *docker) kill(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.end(ctx, "SIGKILL")
}

// end signals the container's first process, the postmaster, and waits until the container has
// stopped. d.mu must be held.
func (d *docker) end(ctx context.Context, signal string) error {
	state, err := d.container.State(ctx)
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	if !state.Running {
		return nil
	}
	if state.Paused {
		if err := d.unpause(ctx); err != nil {
			return err
		}
	}
	id := d.container.GetContainerID()
	wait := d.client.ContainerWait(ctx, id, client.ContainerWaitOptions{
		Condition: container.WaitConditionNotRunning,
	})
	if _, err := d.client.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: signal}); err != nil {
		return fmt.Errorf("postgres: send %s to the container: %w", signal, err)
	}
	select {
	case <-wait.Result:
		return nil
	case err := <-wait.Error:
		return fmt.Errorf("postgres: wait for the container to stop: %w", err)
	}
}

func (d *docker) pause(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	_, err := d.client.ContainerPause(ctx, d.container.GetContainerID(), client.ContainerPauseOptions{})
	if err != nil {
		return fmt.Errorf("postgres: pause the container: %w", err)
	}
	return nil
}

func (d *docker) resume(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	state, err := d.container.State(ctx)
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	if !state.Running {
		return errNotRunning
	}
	if !state.Paused {
		return nil
	}
	return d.unpause(ctx)
}

func (d *docker) unpause(ctx context.Context) error {
	_, err := d.client.ContainerUnpause(ctx, d.container.GetContainerID(), client.ContainerUnpauseOptions{})
	if err != nil {
		return fmt.Errorf("postgres: resume the container: %w", err)
	}
	return nil
}

func (d *docker) remove() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := testcontainers.TerminateContainer(d.container, testcontainers.StopTimeout(0))
	if err != nil {
		err = fmt.Errorf("postgres: remove the container: %w", err)
	}
	return errors.Join(err, d.client.Close())
}
