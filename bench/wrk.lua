-- Sets the request body when BENCH_BODY_BYTES asks for one, and prints wrk's exact numbers as JSON.
-- There is no request() or response() function here: with either, wrk would call Lua for each
-- request and the load generator would become the thing that is measured.

local body_bytes = tonumber(os.getenv("BENCH_BODY_BYTES") or "0")
if body_bytes > 0 then
  wrk.method = "POST"
  wrk.body = string.rep("x", body_bytes)
  wrk.headers["Content-Type"] = "application/octet-stream"
end

function done(summary, latency, requests)
  io.write(string.format(
    '\n{"requests": %d, "duration_us": %d, "errors_status": %d, "errors_socket": %d, '
      .. '"p50_us": %d, "p99_us": %d, "max_us": %d}\n',
    summary.requests, summary.duration, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50), latency:percentile(99), latency.max))
end
