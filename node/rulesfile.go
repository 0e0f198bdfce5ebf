package node

import (
	"errors"
	"os"

	"hadal/perms"
)

// LoadRules reads and checks a rules file by itself, as a configuration that names
// it would: with its ${NAME} put in.
func LoadRules(path string) (perms.Config, error) {
	l := newLoader(os.Environ(), nil)
	const key = "permission.options.permissions"
	k := keyPath{key, key}
	v, err := l.loadFile(k, &value{src: &source{name: "command line"}}, path)
	if err != nil {
		return perms.Config{}, err
	}
	l.config.Permission.Type = "config"
	l.set(key, k, v)
	if len(l.errs) == 0 {
		l.validate()
	}
	return l.config.Permission, errors.Join(l.errs...)
}
