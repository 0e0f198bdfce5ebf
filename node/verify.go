package node

import (
	"context"
	"fmt"
	"path/filepath"

	"hadal/cluster"
	"hadal/node/admin"
	"hadal/protocol/jsonpath"
	"hadal/store"
	"hadal/store/jetstream"
)

// Verified is what Verify found in a data directory.
type Verified struct {
	Dir string `json:"dataDir"`
	jetstream.Report
}

// Verify checks the data directory of a node that does not run, and writes
// nothing into it. each is called with every record that is in order, progress
// with how many bytes of how many are read; both may be nil. The error is about
// the reading; what is damaged is in the result.
func Verify(ctx context.Context, path string, each func(admin.Record) error, progress func(done, total int64)) (v Verified, err error) {
	dir, err := cluster.InspectDir(path)
	if err != nil {
		return v, err
	}
	defer dir.Close() // a lock that cannot be given back goes with the process
	if b := dir.Belongs(); b != nil {
		return v, fmt.Errorf("data directory %s is of a node of cluster %q, whose records are kept in copies: what one node has by itself says little; "+
			"ask the cluster (hadal cluster status, hadal cluster backup)", dir.Path(), b.Name)
	}
	v = Verified{Dir: dir.Path(), Report: jetstream.Report{Streams: []jetstream.StreamReport{}, Problems: []jetstream.Problem{}, Notes: []string{}}}
	partitions := dir.Partitions()
	if err := dir.Damage(); err != nil {
		v.Problems = append(v.Problems, jetstream.Problem{File: filepath.Join(dir.Path(), "meta"), Offset: -1, What: err.Error(), Cure: jetstream.CureRestore})
		partitions = 1
	}
	for i := range partitions {
		opts := jetstream.VerifyOptions{
			Dir: dir.Store(), Partition: i, Epoch: dir.Epoch(), Valid: jsonpath.ValidJSON, Progress: progress,
			Mark:    filepath.Join(dir.Path(), fmt.Sprintf("mark-%d", i)),
			LogMark: filepath.Join(dir.Path(), fmt.Sprintf("mark-log-%d", i)),
		}
		if each != nil {
			opts.Each = func(r store.Record) error { return each(admin.Record(r)) }
		}
		r, err := jetstream.Verify(ctx, opts)
		if err != nil {
			return v, err
		}
		v.Records += r.Records
		v.Tombstones += r.Tombstones
		v.Older += r.Older
		v.Purged += r.Purged
		v.Pending += r.Pending
		v.Data += r.Data
		v.More += r.More
		v.Streams = append(v.Streams, r.Streams...)
		v.Problems = append(v.Problems, r.Problems...)
		v.Notes = append(v.Notes, r.Notes...)
	}
	return v, nil
}
