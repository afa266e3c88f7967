# Calls http2_grpc.py's server: http2_grpc.rb PORT. Prints the truth, one call a line.
require "grpc"
require "json"

port = Integer(ARGV.fetch(0))
bytes = ->(message) { message }

2.times do |connection|
  stub = GRPC::ClientStub.new("127.0.0.1:#{port}", :this_channel_is_insecure,
                              channel_args: { "grpc.use_local_subchannel_pool" => 1 })
  25.times do |n|
    path = "/lab.Ruby/#{n % 5 == 4 ? 'Fail' : 'Say'}#{connection}x#{n}"
    size = [0, 3, 300, 17_000, 5][n % 5]
    status = 0
    begin
      stub.request_response(path, "z" * size, bytes, bytes, metadata: { "x-request-id" => "#{connection}-#{n}" })
    rescue GRPC::BadStatus => error
      status = error.code
    end
    puts JSON.generate(port: port, method: "POST", path: path, status: 200, grpc_status: status,
                       request_bytes: 5 + size, response_bytes: status.zero? ? 5 + size : 0)
  end
  stub = nil
  GC.start
end
