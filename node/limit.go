package node

import "log/slog"

const (
	// leastReserve and mostReserve bound how many files are kept from clients:
	// the store opens some at once, the operator's listener, the log and the
	// certificates need theirs, and the port takes a few sockets beyond its limit
	// to answer questions for its health.
	leastReserve, mostReserve = 96, 1024
	// reserveShare is the part of the system's limit that is kept in between.
	reserveShare = 16
)

// clientLimit is how many connections clients may have if the system allows so
// many open files.
func clientLimit(files uint64) int {
	reserve := min(max(files/reserveShare, leastReserve), mostReserve)
	reserve = min(reserve, files/2)
	return int(min(files-reserve, 1<<30))
}

// maxConnections is the limit that the endpoint gets: what the configuration says,
// but no more than the system allows. 0 is without bound.
func maxConnections(configured int, log *slog.Logger) int {
	files, ok := maxFiles()
	if !ok {
		return configured
	}
	most := clientLimit(files)
	if configured > most {
		log.Warn("the system allows fewer open files than maxConnections needs: raise the limit (ulimit -n, LimitNOFILE=)",
			"key", "httpServer.options.maxConnections", "configured", configured, "used", most, "files", files)
	}
	if configured == 0 {
		return most
	}
	return min(configured, most)
}
