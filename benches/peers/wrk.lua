-- What wrk sends: the same head as src/job.rs, over all hosts in turn. `wrk … URL -- PATH`. Prints its counts as JSON.
local requests, turn = {}, 0

function init(args)
  for host = 0, 999 do
    requests[host + 1] = "GET " .. args[1] .. " HTTP/1.1\r\nHost: h" .. host .. ".example.com\r\n"
      .. "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
      .. "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8\r\n"
      .. "Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n"
      .. "Cookie: session=0123456789abcdef0123456789abcdef\r\n\r\n"
  end
end

function request()
  turn = turn % 1000 + 1
  return requests[turn]
end

function done(summary)
  local e = summary.errors
  io.write(string.format('{"requests":%d,"seconds":%.6f,"bytes":%d,"errors":%d}\n', summary.requests,
    summary.duration / 1e6, summary.bytes, e.connect + e.read + e.write + e.status + e.timeout))
end
