package record

import (
	"errors"
	"fmt"
	"math"

	"hadal/protocol/jsonpath"
)

// Why a write was not accepted. Each becomes one answer in refuseWrite.
var (
	errMissing       = errors.New("record does not exist")
	errVersionExists = errors.New("version exists")
	errVersionAhead  = errors.New("version is ahead of the record")
	errTooLarge      = errors.New("record would exceed records.maxSize")
	errBadPatch      = errors.New("patch does not fit the record")
	errVersionsSpent = errors.New("record has used up its version numbers")
	errTooMuch       = errors.New("patch has too many steps for so large a record")
)

// step checks the version of a write against the state it would follow and
// says which version it makes (spec 08 §3.1).
func step(s state, version int32) (int32, error) {
	switch {
	case version != anyVersion && version <= s.version:
		return 0, errVersionExists
	case version != anyVersion && int64(version) > int64(s.version)+1:
		return 0, errVersionAhead
	case s.version == math.MaxInt32:
		return 0, errVersionsSpent
	}
	return s.version + 1, nil
}

// anyVersion in a write means "whatever comes next".
const anyVersion int32 = -1

// maxWork bounds what one PATCH_MULTI may cost, in bytes walked: each key of each
// step is a walk over the record, and all other records wait meanwhile: a third of
// a second. maxStep bounds one step, and so every other patch: a path of as many
// keys as may be is applied to a record of up to 256 kB.
const (
	maxWork = 256 << 20
	maxStep = 32 << 20
)

// outcome is the data a write makes of the state it follows. A missing record
// counts as an empty one.
func outcome(s state, r *request, maxSize int) (string, error) {
	data := r.data
	if r.changes != nil {
		data = s.data
		if !s.exists {
			data = emptyRecord
		}
		var err error
		work := 0
		for _, c := range r.changes {
			step := len(data) * c.path.Len()
			if work += step; step > maxStep || work > maxWork {
				return "", errTooMuch
			}
			if c.remove {
				data, err = jsonpath.Delete(data, c.path)
			} else {
				data, err = jsonpath.Set(data, c.path, c.value)
			}
			if err != nil {
				return "", fmt.Errorf("%w: %w", errBadPatch, err)
			}
			if len(data) > maxSize {
				return "", errTooLarge
			}
		}
	}
	if len(data) > maxSize {
		return "", errTooLarge
	}
	return data, nil
}
