package node

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"hadal/auth"
	"hadal/node/mqtt"
)

// This file holds what is special about single keys: deepstream's that mean
// nothing here, those whose values are more than their type says, and the
// environment's names for all of them.

// foreignKey is a key of deepstream's that Hadal does not have.
type foreignKey struct {
	// refused keys stop the start; the others are ignored with a warning.
	refused bool
	// why is for the operator: the reason, and the cure if there is one.
	why string
}

func ignored(why string) foreignKey { return foreignKey{why: why} }
func refused(why string) foreignKey { return foreignKey{refused: true, why: why} }

const (
	noPlugins   = "Hadal loads no plugins"
	nodeSockets = "it tunes deepstream's own sockets"
	nodes       = "nodes find each other by cluster"
)

// foreignKeys lists deepstream's keys (spec 13 §2) that are not honoured.
var foreignKeys = map[string]foreignKey{
	"libDir":                          ignored(noPlugins),
	"plugins":                         ignored(noPlugins),
	"showLogo":                        ignored("there is no logo to show"),
	"dependencyInitializationTimeout": ignored("a start takes as long as reading the store does; /readyz says what it waits for"),
	"exitOnFatalError":                ignored("an error that cannot be lived with always ends the process"),
	"cache":                           ignored("records are kept by Hadal itself: see records"),
	"storage":                         ignored("records are kept by Hadal itself: see records; hadal records import brings over what another storage holds"),
	"monitoring":                      ignored("metrics are on the admin listener: see admin"),
	"telemetry":                       ignored("Hadal sends nothing about itself to anybody"),
	"locks":                           ignored("each record, event and rpc has one owner, and needs no locks"),
	"subscriptions":                   ignored("subscriptions are exact at any time, and need no sanity timer"),
	"clusterNode":                     ignored(nodes),
	"clusterRegistry":                 ignored(nodes),
	"clusterStates":                   ignored(nodes),
	"enabledFeatures.monitoring":      ignored("metrics are on the admin listener: see admin"),
	"connectionEndpoints.options.outgoingBufferTimeout": ignored("messages that wait together leave together, without a timer"),
	"connectionEndpoints.options.maxBufferByteSize":     ignored("queues are bounded by queueSoftLimit and queueHardLimit"),
	"connectionEndpoints.options.headers":               ignored("every header of the upgrade request is kept for auth"),
	"httpServer.options.headers":                        ignored("every header of a request is kept for auth"),
	"httpServer.options.hostUrl":                        ignored("origins alone decide which pages may connect"),
	"httpServer.options.maxMessageSize":                 ignored("maxMessageSize of the endpoint counts"),
	"httpServer.options.maxBackpressure":                ignored("queues are bounded by queueSoftLimit and queueHardLimit of the endpoint"),
	"httpServer.options.ssl.dhParams":                   ignored("key exchange is always by elliptic curves"),
	"httpServer.options.ssl.passphrase":                 refused("keys with a passphrase are not read: decrypt the key (openssl pkey -in key.pem -out plain.pem), guard it by file permissions, and remove the passphrase"),
	"mqtt.maxAuthAttempts":                              ignored("a client has one login a connection, as MQTT has it"),
	"mqtt.ssl.passphrase":                               refused("keys with a passphrase are not read: decrypt the key (openssl pkey -in key.pem -out plain.pem), guard it by file permissions, and remove the passphrase"),
	"httpServer.name":                                   refused(noPlugins + ": use type default"),
	"httpServer.path":                                   refused(noPlugins + ": use type default"),
	"permission.name":                                   refused(noPlugins + ": use type config or none"),
	"permission.path":                                   refused(noPlugins + ": use type config or none"),
	"logger.path":                                       refused(noPlugins + ": use type text or json"),
	"logger.options.colors":                             ignored("lines are not coloured"),
}

// unreadKeys are kept in a Config, and checked, but nothing in this version reads
// them: who sets one is told.
var unreadKeys = map[string]string{
	"record.cacheRetrievalTimeout":               "there is one store, and storageRetrievalTimeout bounds the wait for it",
	"permission.options.cacheEvacuationInterval": "look-ups of paths are kept in a table of fixed size",
}

// foreignEndpoints are deepstream's types of connectionEndpoints that this
// version does not serve.
var foreignEndpoints = map[string]string{}

// authTypes are the strategies there are.
var authTypes = []string{"none", "file", "storage", "http", "jwt"}

// byteKeys are the keys whose numbers are bytes, and may have a unit.
var byteKeys = map[string]bool{
	"connectionEndpoints.options.maxMessageSize": true,
	"connectionEndpoints.options.queueSoftLimit": true,
	"connectionEndpoints.options.queueHardLimit": true,
	"mqtt.maxMessageSize":                        true,
	"records.cacheBytes":                         true,
	"records.maxSize":                            true,
	"records.logBytes":                           true,
	"records.checkpointBytes":                    true,
	"records.diskReserve":                        true,
}

// secretKeys are never shown: not in messages, not by Show.
var secretKeys = map[string]bool{
	"admin.token":                   true,
	"apiKeys.hash":                  true,
	"cluster.secret":                true,
	"auth.options.users.*.password": true,
	"auth.options.connectionString": true,
	"auth.options.headers.*":        true,
	"auth.options.keys.secret":      true,
	"httpServer.options.ssl.key":    true,
	"mqtt.ssl.key":                  true,
	"tokens.apiSecret":              true,
	"tokens.signingKeys.key":        true,
	"tokens.signingKeys.secret":     true,
}

// keyFiles are those of them that may be the name of a file, which is no secret.
var keyFiles = map[string]bool{"httpServer.options.ssl.key": true, "mqtt.ssl.key": true, "tokens.signingKeys.key": true}

// specialKeys are read by functions of their own.
var specialKeys map[string]func(*loader, keyPath, *value, reflect.Value)

// extraKeys are deepstream's other ways to say what a key of ours says.
var extraKeys map[string]func(*loader, keyPath, *value)

func init() { // here, because the functions lead back to the tables
	specialKeys = map[string]func(*loader, keyPath, *value, reflect.Value){
		"dataDir":                     (*loader).decodePath,
		"connectionEndpoints":         (*loader).decodeEndpoints,
		"httpServer.type":             (*loader).decodeServerType,
		"httpServer.options.ssl.key":  (*loader).decodePEM,
		"httpServer.options.ssl.cert": (*loader).decodePEM,
		"httpServer.options.ssl.ca":   (*loader).decodePEM,
		"mqtt.ssl.key":                (*loader).decodePEM,
		"mqtt.ssl.cert":               (*loader).decodePEM,
		"mqtt.ssl.ca":                 (*loader).decodePEM,
		"auth":                        (*loader).decodeAuth,
		"auth.options.path":           (*loader).decodePath,
		"auth.options.tls.caFile":     (*loader).decodePath,
		"auth.options.tls.certFile":   (*loader).decodePath,
		"auth.options.tls.keyFile":    (*loader).decodePath,
		"auth.options.keys.keyFile":   (*loader).decodePath,
		"permission.options.path":     (*loader).decodePath,
		"tokens.signingKeys.key":      (*loader).decodePEM,
		"logger.type":                 (*loader).decodeLoggerType,
		"cluster.join":                (*loader).decodeAddresses,
		"cluster.tls.certFile":        (*loader).decodePath,
		"cluster.tls.keyFile":         (*loader).decodePath,
		"cluster.tls.caFile":          (*loader).decodePath,
		"connectionEndpoints.options.unauthenticatedClientTimeout": (*loader).decodeLoginTimeout,
		"mqtt.unauthenticatedClientTimeout":                        (*loader).decodeLoginTimeout,
	}
	extraKeys = map[string]func(*loader, keyPath, *value){
		"logger.name":    (*loader).decodeLoggerName,
		"logger.options": (*loader).decodeLoggerOptions,
	}
}

// word is the text of v, the value of k, or empty if it is nothing or (after a
// complaint) something else.
func (l *loader) word(k keyPath, v *value) string {
	var s string
	l.decodeValue(k, v, reflect.ValueOf(&s).Elem())
	return s
}

// decodePath reads a path, from where the file stands.
func (l *loader) decodePath(k keyPath, v *value, into reflect.Value) {
	if path := l.word(k, v); path != "" {
		into.SetString(v.relative(path))
	}
}

// decodePEM reads a certificate or key. What fileLoad would read stays a path,
// so that the endpoint sees when the file changes.
func (l *loader) decodePEM(k keyPath, v *value, into reflect.Value) {
	function, path, err := l.called(v)
	if err != nil {
		l.errs = append(l.errs, err)
		return
	}
	if function == "" {
		path = l.word(k, v)
		if path == "" {
			return
		}
		if isPEM(path) {
			into.SetString(path)
			return
		}
		path = v.relative(path)
	}
	// The endpoint reads it again and judges it; here a wrong name is told with
	// its place.
	if _, err := readNamed(v, path); err != nil {
		l.errs = append(l.errs, err)
		return
	}
	l.addSource(k.shown, path)
	into.SetString(path)
}

// decodeAddresses reads a list, or a text with commas.
func (l *loader) decodeAddresses(k keyPath, v *value, into reflect.Value) {
	e, err := l.expand(k, v)
	if err != nil {
		l.errs = append(l.errs, err)
		return
	}
	if into.Kind() != reflect.Slice || e.kind != scalarKind || e.isNull() { // one of the list, or the list
		l.decodeValue(k, v, into)
		return
	}
	var list []string
	for _, addr := range strings.Split(l.word(k, v), ",") {
		if addr = strings.TrimSpace(addr); addr != "" {
			list = append(list, addr)
		}
	}
	into.Set(reflect.ValueOf(list))
}

// decodeLoginTimeout reads unauthenticatedClientTimeout, which may be a boolean.
func (l *loader) decodeLoginTimeout(k keyPath, v *value, into reflect.Value) {
	e, err := l.expand(k, v)
	if err != nil {
		l.errs = append(l.errs, err)
		return
	}
	switch e.bare() {
	case nil, false:
		into.SetInt(0)
	case true:
		l.warn(v, "%s: true is no time: the default of %v counts", k.shown, time.Duration(into.Int()))
	default:
		l.decodeValue(k, v, into)
	}
}

// decodeEndpoints reads the list of endpoints: each entry over the defaults of
// its type. Those of other dialects are left out with a warning.
func (l *loader) decodeEndpoints(k keyPath, v *value, into reflect.Value) {
	list := []EndpointConfig{}
	read := l.eachEntry(k, v, func(at keyPath, entry *value) {
		kind := entry.get("type")
		types := strings.Join(endpointTypes(), ", ")
		if l.plugin(at, entry, "use type "+types) {
			return
		}
		if kind == nil {
			l.fail(at, entry, "has no type: use %s", types)
			return
		}
		name := l.word(at.field("type"), kind)
		if what, ok := foreignEndpoints[name]; ok {
			l.warn(kind, "%s: ignored: %s (type %s) is not in this version", at.shown, what, name)
			return
		}
		if name == mqtt.Name {
			l.decodeMQTT(at, entry)
			return
		}
		e, ok := defaultEndpoint(name)
		if !ok {
			if name != "" {
				l.fail(at.field("type"), kind, "%q is not a type of endpoint: use %s", name, types)
			}
			return
		}
		l.moved[fmt.Sprintf("connectionEndpoints[%d]", len(list))] = at.shown
		if name == typeHTTP {
			h := httpEndpoint{Options: e.API}
			l.decodeValue(at, entry, reflect.ValueOf(&h).Elem())
			e.API = h.Options
		} else {
			l.decodeValue(at, entry, reflect.ValueOf(&e).Elem())
		}
		list = append(list, e)
	})
	if read {
		into.Set(reflect.ValueOf(list))
	}
}

// decodeMQTT reads the entry of type mqtt: its options are the section mqtt.
func (l *loader) decodeMQTT(at keyPath, entry *value) {
	for _, e := range entry.entries {
		if e.key.text != "type" && e.key.text != "options" {
			l.fail(at.field(e.key.text), e.key, "is no key of an endpoint: it has type and options")
		}
	}
	if l.moved["mqtt"] != "" {
		l.fail(at.field("type"), entry.get("type"), "a second mqtt endpoint: a node has one")
	}
	l.moved["mqtt"] = at.shown + ".options"
	if options := entry.get("options"); options != nil {
		l.decodeValue(keyPath{at.shown + ".options", "mqtt"}, options, reflect.ValueOf(&l.config.MQTT).Elem())
	}
	l.config.MQTT.Enabled = true
}

// decodeAuth reads the list of strategies.
func (l *loader) decodeAuth(k keyPath, v *value, into reflect.Value) {
	list := []auth.Config{}
	read := l.eachEntry(k, v, func(at keyPath, entry *value) {
		kind := entry.get("type")
		if l.plugin(at, entry, "use type "+auth.Types) {
			return
		}
		if kind == nil {
			l.fail(at, entry, "has no type: use %s", auth.Types)
			return
		}
		switch name := l.word(at.field("type"), kind); {
		case slices.Contains(authTypes, name):
			var c auth.Config
			l.moved[fmt.Sprintf("auth[%d]", len(list))] = at.shown
			l.decodeValue(at, entry, reflect.ValueOf(&c).Elem())
			list = append(list, c)
		case name != "":
			l.fail(at.field("type"), kind, "%q is not a strategy: use %s", name, auth.Types)
		}
	})
	if read {
		into.Set(reflect.ValueOf(list))
	}
}

// eachEntry calls do for each entry of a list of mappings, leaving out those that
// are null. It says whether there is a list.
func (l *loader) eachEntry(k keyPath, v *value, do func(at keyPath, entry *value)) bool {
	v, err := l.expand(k, v)
	switch {
	case err != nil:
		l.errs = append(l.errs, err)
		return false
	case v.isNull():
		return false
	case v.kind != listKind:
		l.expected(k, v, "a list")
		return false
	}
	for i, item := range v.items {
		at := k.item(i)
		l.places[at.shown] = item
		item, err := l.expand(at, item)
		switch {
		case err != nil:
			l.errs = append(l.errs, err)
		case item.isNull():
		case item.kind != dictKind:
			l.expected(at, item, "a mapping")
		default:
			do(at, item)
		}
	}
	return true
}

// plugin complains about an entry that names a plugin to be loaded.
func (l *loader) plugin(k keyPath, entry *value, cure string) bool {
	for _, key := range []string{"name", "path"} {
		if v := entry.get(key); v != nil && !v.isNull() {
			l.fail(k.field(key), v, "%s: %s", noPlugins, cure)
			return true
		}
	}
	return false
}

// decodeServerType reads httpServer.type.
func (l *loader) decodeServerType(k keyPath, v *value, into reflect.Value) {
	switch name := l.word(k, v); name {
	case "":
	case "uws":
		l.warn(v, "%s: uws and default are the same here", k.shown)
		into.SetString("default")
	default:
		into.SetString(name)
	}
}

// decodeLoggerType reads logger.type.
func (l *loader) decodeLoggerType(k keyPath, v *value, into reflect.Value) {
	switch name := l.word(k, v); name {
	case "":
	case "default":
		into.SetString("text")
	default:
		into.SetString(name)
	}
}

// decodeLoggerName reads logger.name, with which deepstream loads a logger; of
// those, pino writes JSON.
func (l *loader) decodeLoggerName(k keyPath, v *value) {
	switch name := l.word(k, v); name {
	case "":
	case "pino":
		l.config.Logger.Type = "json"
	default:
		l.fail(k, v, "%s: use type text or json", noPlugins)
	}
}

// decodeLoggerOptions reads logger.options.
func (l *loader) decodeLoggerOptions(k keyPath, v *value) {
	var o struct {
		LogLevel *LogLevel `yaml:"logLevel"`
	}
	l.decodeValue(k, v, reflect.ValueOf(&o).Elem())
	if o.LogLevel != nil {
		l.loggerLevel = o.LogLevel
	}
}

// configKey is a key that is set as a whole: not a section.
type configKey struct {
	path string
	typ  reflect.Type
}

// env is the variable that sets it.
func (k configKey) env() string {
	return "HADAL_" + strings.ToUpper(strings.ReplaceAll(k.path, ".", "_"))
}

// configKeys lists the keys below a struct in the order of its fields.
func configKeys(prefix string, t reflect.Type) []configKey {
	var keys []configKey
	for i := range t.NumField() {
		f := t.Field(i)
		path := strings.TrimPrefix(prefix+"."+f.Tag.Get("yaml"), ".")
		if f.Type.Kind() == reflect.Struct {
			keys = append(keys, configKeys(path, f.Type)...)
			continue
		}
		keys = append(keys, configKey{path, f.Type})
	}
	return keys
}

// isOther says whether a variable that begins with HADAL_ is no key: the name of
// the file, and what the project's own tests use, whose environment a node
// under test inherits.
func isOther(name string) bool {
	switch name {
	case "HADAL_CONFIG", "HADAL_BIN", "HADAL_CRASH_ROUNDS", "HADAL_CHAOS_SEEDS":
		return true
	}
	return strings.HasPrefix(name, "HADAL_E2E_")
}

// nodeName is another name for HADAL_SERVERNAME, as the flag has it.
const nodeName = "HADAL_NODE_NAME"

// readEnvironment overlays the configuration with HADAL_ variables. An empty one
// counts as not set.
func (l *loader) readEnvironment() {
	keys := map[string]configKey{nodeName: {"serverName", reflect.TypeFor[string]()}}
	names := []string{nodeName}
	for _, k := range configKeys("", reflect.TypeFor[Config]()) {
		keys[k.env()] = k
		names = append(names, k.env())
	}
	var found []string
	for name := range l.env {
		if strings.HasPrefix(name, "HADAL_") && !isOther(name) {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	dir, err := os.Getwd()
	if err != nil {
		dir = "." // then relative paths start there by themselves
	}
	for _, name := range found {
		text := l.env[name]
		src := &source{name: "environment variable " + name, dir: dir, text: text}
		at := &value{src: src, text: text, plain: true}
		k, ok := keys[name]
		if !ok {
			why := "there is no such key"
			near := nearest(name, names)
			if i := slices.IndexFunc(names, func(n string) bool { return strings.HasSuffix(n, name[len("HADAL"):]) }); i >= 0 {
				near = names[i] // a section was left out
			}
			if near != "" {
				why += ": did you mean " + near + "?"
			}
			l.errs = append(l.errs, &placeError{at: at, text: why})
			continue
		}
		if text == "" {
			continue
		}
		switch k.typ.Kind() {
		case reflect.String:
			at.plain = false // taken as it is
		case reflect.Slice, reflect.Interface, reflect.Map:
			src.loads = true
			v, err := parseSource(src)
			if err != nil {
				l.errs = append(l.errs, err)
				continue
			}
			at = v
		}
		l.set(k.path, keyPath{k.path, k.path}, at)
	}
}
