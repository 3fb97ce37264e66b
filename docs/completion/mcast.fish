function __mcast
    for line in (mcast completion fish --line (commandline -cp | string collect) 2>/dev/null)
        if string match -q -- \x01files $line
            __fish_complete_path (commandline -ct)
        else
            echo -- $line
        end
    end
end
complete -c mcast -f -a '(__mcast)'
