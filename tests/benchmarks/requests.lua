-- Send the prepared requests of a file in turn, and count the answers that are not as they should be.
--
--   wrk -s requests.lua URL -- FILE THREADS STATUS [TEXT...]
--
-- FILE holds what all requests end with, and then the requests as they go over the wire until there,
-- each after a line with its length. THREADS is how many wrk has. An answer is bad when its status is
-- not STATUS or its body holds one of the texts. The last line of the output is requests, seconds,
-- bad answers, socket errors, and p50, p99 and maximum of the latency in ms.

local threads = {}

function setup(thread)
    thread:set("place", #threads)
    table.insert(threads, thread)
end

function init(args)
    prepared, bad, first_bad = {}, 0, ""
    local file = assert(io.open(args[1], "rb"))
    local length = file:read("*number")
    while length do
        file:read(1)
        table.insert(prepared, file:read(length))
        length = file:read("*number")
    end
    file:close()
    ending = table.remove(prepared, 1)
    stride = tonumber(args[2])  -- told, for the first thread is under way before there is a second
    expected = tonumber(args[3])
    unwanted = {}
    for text = 4, #args do
        table.insert(unwanted, args[text])
    end
end

function request()
    local this = prepared[place % #prepared + 1]
    place = place + stride
    return this .. ending
end

function response(status, headers, body)
    local wrong = status ~= expected
    for _, text in ipairs(unwanted) do
        wrong = wrong or body:find(text, 1, true) ~= nil
    end
    if wrong then
        bad = bad + 1
        first_bad = status .. " " .. body:sub(1, 300):gsub("\n", " ")
    end
end

function done(summary, latency)
    local wrong = 0
    for _, thread in ipairs(threads) do
        wrong = wrong + thread:get("bad")
        if thread:get("first_bad") ~= "" then
            print(thread:get("first_bad"))
        end
    end
    local errors = summary.errors
    print(string.format("%d %f %d %d %f %f %f", summary.requests, summary.duration / 1e6, wrong,
        errors.connect + errors.read + errors.write + errors.timeout,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
