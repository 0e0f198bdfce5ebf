package record

import "time"

// Config configures records. It has two parts in the file: `record`, whose keys
// are deepstream's, and `records`, which is Hadal's own.
type Config struct {
	// CacheRetrievalTimeout is read for compatibility; Hadal has one store, and
	// waits for it as long as StorageRetrievalTimeout.
	CacheRetrievalTimeout time.Duration `yaml:"cacheRetrievalTimeout"`
	// StorageRetrievalTimeout bounds the wait for the store: a read that takes
	// longer is answered with STORAGE_RETRIEVAL_TIMEOUT.
	StorageRetrievalTimeout time.Duration `yaml:"storageRetrievalTimeout"`
	// StorageExclusionPrefixes lists beginnings of names that are kept in memory
	// only and are gone after a restart.
	StorageExclusionPrefixes []string `yaml:"storageExclusionPrefixes"`
	// StorageHotPathPrefixes lists beginnings of names whose whole-record upserts
	// skip the version check (last writer wins, version 0).
	StorageHotPathPrefixes []string `yaml:"storageHotPathPrefixes"`
}

// DefaultConfig is complete.
func DefaultConfig() Config {
	return Config{
		CacheRetrievalTimeout:   time.Second,
		StorageRetrievalTimeout: 2 * time.Second,
	}
}

// KeepConfig is the part of the file called `records`: how records are kept.
type KeepConfig struct {
	// Store is where records are kept: "disk" (JetStream files in the data
	// directory) or "memory" (lost at exit).
	Store string `yaml:"store"`
	// Sync says when a commit is on disk: "always" (fsync before the answer) or
	// "interval" (fsync every syncInterval; a power cut may lose that much).
	Sync string `yaml:"sync"`
	// SyncInterval is the time between fsyncs with sync "interval".
	SyncInterval time.Duration `yaml:"syncInterval"`
	// Durability says what an answer waits for: "quorum" (the commit) or "fast"
	// (nothing: the commit follows, and a crash may lose what was answered in the
	// moment before it).
	Durability string `yaml:"durability"`
	// LogBytes is how much of the log may wait to be carried over to the records'
	// own files. As much is held in memory. At three quarters of it writes wait,
	// then are refused.
	LogBytes int64 `yaml:"logBytes"`
	// CheckpointBytes is how much of the log makes a checkpoint begin, which carries
	// it over; at most a quarter of logBytes.
	CheckpointBytes int64 `yaml:"checkpointBytes"`
	// CheckpointAge is how long a change waits for a checkpoint at most.
	CheckpointAge time.Duration `yaml:"checkpointAge"`
	// DiskReserve is how much of the disk is kept free: writes that would need it
	// are refused. 0 means an eighth of the disk, but at least 32 MiB and at most
	// 256 MiB.
	DiskReserve int64 `yaml:"diskReserve"`
	// CacheBytes bounds the memory that records not being written may occupy.
	CacheBytes int64 `yaml:"cacheBytes"`
	// MaxSize is the largest record in bytes of JSON; a write that would exceed
	// it is refused.
	MaxSize int `yaml:"maxSize"`
}

// DefaultKeepConfig is complete.
func DefaultKeepConfig() KeepConfig {
	return KeepConfig{
		Store:           "disk",
		Sync:            "always",
		SyncInterval:    time.Second,
		Durability:      "quorum",
		LogBytes:        512 << 20,
		CheckpointBytes: 64 << 20,
		CheckpointAge:   5 * time.Second,
		CacheBytes:      256 << 20,
		MaxSize:         1 << 20,
	}
}
