package node

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"hadal/auth"
)

// Overrides are the flags of the command line; they win over everything else.
// A nil pointer leaves the key alone.
type Overrides struct {
	// Host and Port set httpServer.options.
	Host *string
	Port *int
	// DataDir sets dataDir, relative to the working directory.
	DataDir *string
	// LogLevel sets logLevel, by name or number; LogFormat sets logger.type.
	LogLevel, LogFormat *string
	// NodeName sets serverName, the others the keys of cluster.
	NodeName, ClusterName, ClusterListen, ClusterAdvertise, Join, Role *string
	BootstrapExpect                                                    *int
	// DisableAuth puts the one strategy "none" in place of auth.
	DisableAuth bool
	// DisablePermissions sets permission.type to "none".
	DisablePermissions bool
}

// Loaded says where a configuration came from.
type Loaded struct {
	// File is the configuration file, or empty for the built-in defaults.
	File string
	// Warnings are sentences for the operator, each with its place.
	Warnings []string
	// Sources are the files that make a reload worthwhile when they change: File
	// itself, the files it loads, and the certificates it names.
	Sources []Source
	// Rules is the one of them that holds the rules.
	Rules RulesFile
}

// Source is a file that a configuration was made from.
type Source struct {
	// Key is the key whose value the file holds; empty for the file itself.
	Key string
	// Path is absolute.
	Path string
}

// configBases are where a file is looked for when none is named, without their
// extensions: ours first, then deepstream's (spec 13 §1).
var configBases = []string{
	"conf/config",
	"/etc/hadal/config",
	"/etc/deepstream/conf",
	"/etc/deepstream/conf/config",
}

// configExtensions are tried in this order.
var configExtensions = []string{".yml", ".yaml", ".json", ".js"}

// LoadConfig reads, joins and validates the configuration: Default, overlaid
// with the file, with the environment (HADAL_…), with flags (spec 13 §1). The
// file is path, else the one named by HADAL_CONFIG or DEEPSTREAM_CONFIG_DIRECTORY,
// else the first of the usual places that exists, else none.
//
// The error joins every mistake, each with its place. Rules and users are in
// the Config itself whichever way the file names them, so loading again with
// the same arguments is a reload. Loaded is filled as far as loading came.
func LoadConfig(path string, o Overrides) (Config, Loaded, error) {
	l := newLoader(os.Environ(), configBases)
	c, err := l.load(path, o)
	return c, l.loaded, err
}

// loader is one run of LoadConfig.
type loader struct {
	env    map[string]string
	bases  []string
	config Config
	loaded Loaded
	errs   []error
	// places holds where each key was set, by its name in messages.
	places map[string]*value
	// moved renames the beginnings of Config's keys to those of the file, which
	// differ in lists with entries that are left out.
	moved map[string]string
	// loggerLevel is logger.options.logLevel, which goes before logLevel
	// whichever comes first in the file.
	loggerLevel *LogLevel
}

func newLoader(environ, bases []string) *loader {
	l := &loader{
		env:    make(map[string]string, len(environ)),
		bases:  bases,
		config: Default(),
		places: make(map[string]*value),
		moved:  make(map[string]string),
	}
	for _, e := range environ {
		name, text, _ := strings.Cut(e, "=")
		l.env[name] = text
	}
	return l
}

func (l *loader) load(path string, o Overrides) (Config, error) {
	path, err := l.find(path)
	if err != nil {
		return Config{}, err
	}
	if path != "" {
		l.loaded.File = path
		if err := l.readFile(path); err != nil {
			return Config{}, err
		}
	}
	l.readEnvironment()
	l.readOverrides(o)
	l.readPaths()
	if len(l.errs) == 0 {
		// Only what could be read can be judged: a key whose value was refused
		// still has its default, and complaints about that would mislead.
		l.validate()
	}
	if err := errors.Join(l.errs...); err != nil {
		return Config{}, err
	}
	if l.config.ServerName == "UUID" {
		l.config.ServerName = "hadal-" + strings.ToLower(rand.Text()[:12])
	}
	if every := l.config.Listen.RematchInterval; every <= rematchOff {
		l.warn(l.places["listen.rematchInterval"], "listen.rematchInterval: %d ms or less switches rematching off: "+
			"names that no provider accepted stay without one until a provider comes", rematchOff.Milliseconds())
	}
	return l.config, nil
}

// find says which file to read; empty is none.
func (l *loader) find(path string) (string, error) {
	if path != "" {
		return path, nil
	}
	if path := l.env["HADAL_CONFIG"]; path != "" {
		return path, nil
	}
	if path := l.env["DEEPSTREAM_CONFIG_DIRECTORY"]; path != "" {
		l.warn(nil, "DEEPSTREAM_CONFIG_DIRECTORY names the configuration: set HADAL_CONFIG instead")
		// The name says directory, deepstream takes a file: both are fine.
		if info, err := os.Stat(path); err != nil || !info.IsDir() {
			return path, nil
		}
		if found := firstFile([]string{filepath.Join(path, "config")}); found != "" {
			return found, nil
		}
		return "", fmt.Errorf("DEEPSTREAM_CONFIG_DIRECTORY: there is no config.yml in %s", path)
	}
	return firstFile(l.bases), nil
}

// firstFile is the first of the files that exists.
func firstFile(bases []string) string {
	for _, base := range bases {
		for _, ext := range configExtensions {
			if info, err := os.Stat(base + ext); err == nil && !info.IsDir() {
				return base + ext
			}
		}
	}
	return ""
}

// readFile overlays the configuration with a file.
func (l *loader) readFile(path string) error {
	if err := checkExtension(path); err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	text, err := readLimited(path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	l.addSource("", path)
	v, err := parseSource(&source{
		name: path, dir: filepath.Dir(path), text: text, variables: true, loads: true,
	})
	if err != nil {
		return err
	}
	l.decodeRoot(v)
	if l.loggerLevel != nil {
		l.config.LogLevel = *l.loggerLevel
	}
	return nil
}

// checkExtension refuses files that cannot be configurations.
func checkExtension(path string) error {
	switch ext := filepath.Ext(path); ext {
	case ".yml", ".yaml", ".json":
		return nil
	case ".js", ".cjs", ".mjs", ".ts":
		return errors.New("JavaScript is not run here: save what it exports as YAML or JSON")
	default:
		return fmt.Errorf("%q is not a known extension: use .yml, .yaml or .json", ext)
	}
}

// addSource remembers a file. A path that cannot be made absolute stays as it is.
func (l *loader) addSource(key, path string) {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if s := (Source{key, path}); !slices.Contains(l.loaded.Sources, s) {
		l.loaded.Sources = append(l.loaded.Sources, s)
	}
}

// readOverrides overlays the configuration with flags.
func (l *loader) readOverrides(o Overrides) {
	set := func(flag, key, text string) {
		l.set(key, keyPath{key, key}, &value{src: &source{name: "flag " + flag}, text: text, made: true})
	}
	for _, f := range []struct {
		flag, key string
		text      *string
	}{
		{"--host", "httpServer.options.host", o.Host}, {"--data-dir", "dataDir", o.DataDir},
		{"--log-level", "logLevel", o.LogLevel}, {"--log-format", "logger.type", o.LogFormat},
		{"--node-name", "serverName", o.NodeName}, {"--cluster-name", "cluster.name", o.ClusterName},
		{"--cluster-listen", "cluster.listen", o.ClusterListen}, {"--cluster-advertise", "cluster.advertise", o.ClusterAdvertise},
		{"--join", "cluster.join", o.Join}, {"--role", "cluster.role", o.Role},
	} {
		if f.text != nil {
			set(f.flag, f.key, *f.text)
		}
	}
	for _, f := range []struct {
		flag, key string
		n         *int
	}{
		{"--port", "httpServer.options.port", o.Port}, {"--bootstrap-expect", "cluster.bootstrapExpect", o.BootstrapExpect},
	} {
		if f.n != nil {
			set(f.flag, f.key, strconv.Itoa(*f.n))
		}
	}
	if o.DisableAuth {
		l.forget("auth")
		l.places["auth"] = &value{src: &source{name: "flag --disable-auth"}}
		l.config.Auth = []auth.Config{{Type: "none"}}
	}
	if o.DisablePermissions {
		l.forget("permission.type")
		l.config.Permission.Type = "none"
	}
}

// readPaths puts what auth's and permission's `path` name in the place of users
// and permissions, so that there is one way to read, to point at mistakes, and
// to reload.
func (l *loader) readPaths() {
	for i := range l.config.Auth {
		o := &l.config.Auth[i].Options
		l.readPath(fmt.Sprintf("auth[%d].options.", i), "auth.options.", "users", &o.Path, len(o.Users) > 0)
	}
	p := &l.config.Permission.Options
	l.readPath("permission.options.", "permission.options.", "permissions", &p.Path, p.Permissions != nil)
}

// readPath reads the file at *path into the key beside it, unless that is taken.
func (l *loader) readPath(section, pattern, key string, path *string, taken bool) {
	if *path == "" {
		return
	}
	shown := l.rename(section)
	at := l.places[shown+"path"]
	if taken {
		l.fail(keyPath{shown: shown + "path"}, at, "%s is set as well: keep one of them", key)
		return
	}
	k := keyPath{shown + key, pattern + key}
	v, err := l.loadFile(k, at, *path)
	if err != nil {
		l.errs = append(l.errs, err)
		return
	}
	*path = ""
	l.set(section+key, k, v)
}

// validate adds what Validate finds, with the places of the keys.
func (l *loader) validate() {
	for _, err := range flatten(l.config.Validate()) {
		key, rest, _ := strings.Cut(err.Error(), ": ")
		key = l.rename(key)
		if at := l.placeOf(key); at != nil {
			if key == "permission.options.permissions" {
				at = mentioned(at, rest)
			}
			err = &placeError{at, key + ": " + rest, true}
		}
		l.errs = append(l.errs, err)
	}
}

// mentioned is the key in v that text is about: `event: path "a": rule publish`
// names one key of each level, by itself or in quotes. It is v, or the last
// mapping on the way, when text names none that is there.
func mentioned(v *value, text string) *value {
	at := v
	for v != nil && v.kind == dictKind {
		first, end := len(text), 0
		var found entry
		for _, e := range v.entries {
			for _, form := range []string{e.key.text + ": ", strconv.Quote(e.key.text)} {
				i := strings.Index(text, form)
				atWord := i == 0 || i > 0 && text[i-1] == ' '
				if atWord && (i < first || i == first && i+len(form) > end) {
					first, end, found = i, i+len(form), e
				}
			}
		}
		if found.key == nil {
			break
		}
		at, v, text = found.key, found.value, text[end:]
	}
	return at
}

// flatten is the errors that were joined to err.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}

// placeOf is where a key, or the closest thing around it, was set; nil when it
// is a default.
func (l *loader) placeOf(key string) *value {
	for key != "" {
		if at := l.places[key]; at != nil {
			return at
		}
		key = key[:max(0, strings.LastIndexAny(key, ".["))]
	}
	return nil
}

// rename is a key of Config as the file has it.
func (l *loader) rename(key string) string {
	item, rest, ok := strings.Cut(key, "]")
	if to, is := l.moved[item+"]"]; ok && is {
		return to + rest
	}
	if rest, ok := strings.CutPrefix(key, "mqtt."); ok && l.moved["mqtt"] != "" {
		return l.moved["mqtt"] + "." + rest
	}
	return key
}

// forget drops the places of a key and of what is in it, before it is set anew.
func (l *loader) forget(key string) {
	within := func(k string) bool {
		rest, ok := strings.CutPrefix(k, key)
		return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
	}
	for k := range l.places {
		if within(k) {
			delete(l.places, k)
		}
	}
	for k := range l.moved {
		if within(k) {
			delete(l.moved, k)
		}
	}
}

// warn adds a warning, with the place of at if there is one.
func (l *loader) warn(at *value, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if at != nil {
		text = at.place() + ": " + text
	}
	l.loaded.Warnings = append(l.loaded.Warnings, text)
}

// fail adds a mistake in the value of a key.
func (l *loader) fail(k keyPath, at *value, format string, args ...any) {
	l.errs = append(l.errs, at.fail("%s: %s", k.shown, fmt.Sprintf(format, args...)))
}
