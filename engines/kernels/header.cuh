// What a request is on the device: HEADER of engines/buffered.py.
struct Header {
    float offset[4], gain[4];
    int clusters, spare[7];
};
